"""What the manager and a process worker say to each other: one struct for each sentence, as small arrays on the wire.

Values of users (arguments, results) are `Parcel`s: plain numbers and text as they are, everything else pickled. What
comes from a worker is unpickled with a list of what may be in it: the manager loads no code of a driver, and a worker
that says something else is taken for faulty.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast

import msgspec
import numpy as np

from duodaq.errors import DataError, DuodaqError
from duodaq.link import BlobRef, Message, error_from_wire, error_to_wire
from duodaq.model import (
    ChannelInfo,
    Command,
    Execute,
    GetParameter,
    InstrumentStatus,
    ParameterEntry,
    ReadChannel,
    RuntimeStatus,
    Scalar,
    SetParameter,
)
from duodaq.ports import OfUser, Stopped, ToUser
from duodaq.workers._by_value import dumps

VERSION: Final = 5
_PLAIN = frozenset({type(None), bool, float, bytes})
_NUMPY_CORE = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"
_BY_NAME = frozenset(
    {("builtins", name) for name in ("bool", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice",
                                     "str", "tuple")}
    | {("collections", name) for name in ("Counter", "OrderedDict", "defaultdict", "deque")}
    | {("copyreg", "_reconstructor"), ("decimal", "Decimal"), ("fractions", "Fraction")}
    | {("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")}
    | {("numpy", "dtype"), ("numpy", "ndarray"), ("numpy.ma", "MaskedArray"), ("numpy.ma.core", "_mareconstruct"),
       ("uuid", "SafeUUID"), ("uuid", "UUID")}
    | {(f"{_NUMPY_CORE}.{module}", name)
       for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))}
)  # fmt: skip
_OF_DUODAQ = frozenset({"dataplane", "drivers", "errors", "link", "model", "ports", "schema", "units", "v2", "v4"})
_VALUES = (msgspec.Struct, Enum, DuodaqError, np.generic, PurePath)
_PACKAGES = frozenset({module.partition(".")[0] for module, _ in _BY_NAME} | {"duodaq", "pathlib"})
_LONGEST_RANGE = 10_000_000

Parcel: TypeAlias = Any
"""A plain value, or the pickle of one as an extension value."""

_PICKLED = 1


# ---- the manager says ------------------------------------------------------------------------------------------------


class Make(Message, frozen=True, tag="m"):
    """The first message: what to be. `plan` is a pickled WorkerPlan. Four descriptors come beside it."""

    version: int
    plan: bytes


class Ask(Message, frozen=True, tag="a"):
    """Do something, and answer under the same number; if it is `traced`, with the time that it took."""

    number: int
    op: str
    body: Parcel
    trace_id: str | None = None
    traced: bool = False


class Order(Message, frozen=True, tag="o"):
    """As an Ask for a command, in which there is nothing but plain values: a pickle costs more than all the rest."""

    number: int
    instrument: str
    command: Command
    deadline_s: float | None = None
    trace_id: str | None = None
    traced: bool = False


class Cancel(Message, frozen=True, tag="c"):
    """Nobody waits for that answer any more."""

    number: int


class Probe(Message, frozen=True, tag="p"):
    """Give a sign of progress."""

    number: int


class Stops(Message, frozen=True, tag="s"):
    """The stop epoch of a port has risen; or, with an empty name, the latch has been closed (1) or opened (0)."""

    port: str
    epoch: int


class Lost(Message, frozen=True, tag="z"):
    """The line of a port is lost."""

    port: str


class PortIs(Message, frozen=True, tag="q"):
    """There is a port of this name, which is this; or, without a definition, none any more."""

    name: str
    definition: Parcel = None


class Known(Message, frozen=True, tag="k"):
    """An entry of the parameter table is now this."""

    entry: ParameterEntry


class Taken(Message, frozen=True, tag="t"):
    """So many items of the outbox have been published, since the beginning; these blobs nobody looks at any more."""

    count: int
    credits: list[int] = []  # noqa: RUF012 - msgspec gives each an empty list of its own


class Credit(Message, frozen=True, tag="r"):
    """Nobody looks at these blobs any more."""

    numbers: list[int]


class NeighbourAnswer(Message, frozen=True, tag="n"):
    """What became of a NeighbourAsk: its result, or its error and the error's cause."""

    number: int
    body: Parcel = None
    error: dict[str, Any] | None = None
    cause: dict[str, Any] | None = None


# ---- the worker says -------------------------------------------------------------------------------------------------


class Made(Message, frozen=True, tag="M"):
    """It is what it was told to be; or, with an error, cannot."""

    error: dict[str, Any] | None = None


class Answer(Message, frozen=True, tag="A"):
    """What became of an Ask: its result, or its error and the error's cause; of a traced one, when it was.

    A number that was measured, the most frequent result, is a `reading` and needs no pickle.
    """

    number: int
    body: Parcel = None
    error: dict[str, Any] | None = None
    cause: dict[str, Any] | None = None
    took: tuple[int, int] | None = None
    reading: Scalar | None = None

    @property
    def result(self) -> Any:
        """The result.

        Raises:
            DataError: It holds what may not travel.
        """
        return unpack(self.body) if self.reading is None else self.reading


class Alive(Message, frozen=True, tag="P"):
    """The answer to a Probe."""

    number: int


class Snapshot(Message, frozen=True, tag="S"):
    """How the runtime and its instruments are, whenever that has changed."""

    status: RuntimeStatus
    instruments: list[InstrumentStatus]
    channels: list[ChannelInfo]


class Figures(Message, frozen=True, tag="F"):
    """The runtime's metrics."""

    figures: Parcel


class NeighbourAsk(Message, frozen=True, tag="Y"):
    """Have another instrument of the lab carry out a command, for the instrument `asker` of this worker."""

    number: int
    asker: str
    target: str
    command: Parcel
    timeout_s: float
    trace_id: str | None = None


class RecorderAsk(Message, frozen=True, tag="rec"):
    """Have the lab's recorder start or stop; a NeighbourAnswer of that number says what became of it."""

    number: int
    op: str
    options: Parcel = None


class Put(Message, frozen=True, tag="U"):
    """An entry of the parameter table, written by its owner."""

    instrument: str
    name: str
    value: Parcel
    unit: str


class Kept(Message, frozen=True, tag="K"):
    """A setting of an instrument's is now this, and its next driver is to have it too."""

    instrument: str
    name: str
    value: Parcel


class Nature(Message, frozen=True, tag="b"):
    """Whether the acquisition of an actor moves or emits, which only its class can tell."""

    instrument: str
    streams: bool


class Stale(Message, frozen=True, tag="O"):
    """Nobody keeps an instrument's entries up to date any more."""

    instrument: str


class Rows(Message, frozen=True, tag="D"):
    """Scalars, in the order in which they were measured."""

    rows: list[Scalar]


class Item(Message, frozen=True, tag="I"):
    """One other measurement, pickled; its array in the ring if `blob` says where."""

    body: Parcel
    blob: BlobRef | None = None


class Batch(Message, frozen=True, tag="N"):
    """A record batch as an Arrow stream: here, or, if `blob` says where, in the ring."""

    body: bytes = b""
    blob: BlobRef | None = None


class Ring(Message, frozen=True, tag="G"):
    """A ring's descriptor waits on the other line."""

    size: int


class Log(Message, frozen=True, tag="l"):
    """A line of the log."""

    logger: str
    level: int
    event: Parcel


FromManager: TypeAlias = (
    Make | Order | Ask | Cancel | Probe | ToUser | Stops | Lost | PortIs | Stopped | Known | Taken | Credit
    | NeighbourAnswer
)  # fmt: skip
FromWorker: TypeAlias = (
    Made | Answer | Alive | Snapshot | Figures | OfUser | Put | Kept | Nature | Stale | Rows | Item | Batch | Ring | Log
    | NeighbourAsk | RecorderAsk
)  # fmt: skip


# ---- values ----------------------------------------------------------------------------------------------------------


def parcel(value: Any, look: Callable[[Any], None] | None = None) -> Parcel:
    """`value` as it travels: plain ones as they are, others pickled, once `look` has seen each object in them.

    Raises:
        DataError: It cannot be pickled.
    """
    if _is_bare(value):
        return value
    try:
        return msgspec.msgpack.Ext(_PICKLED, dumps(value, look))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{type(value).__name__} does not travel to or from a worker: {error}") from error


def _is_bare(value: Any) -> bool:
    kind = cast("type[Any]", type(value))
    return kind in _PLAIN or (kind is int and -(2**63) <= value < 2**63) or _is_text(value)


def may_be_ordered(command: Command) -> bool:
    """Whether a command comes out of an Order as what it was: the kinds that are called often, with plain values."""
    match command:
        case Execute():
            return (
                not command.kwargs
                and type(command.args) is tuple
                and _is_text(command.name)
                and all(map(_is_bare, command.args))
            )
        case SetParameter():
            return _is_text(command.name) and _is_bare(command.value)
        case GetParameter():
            return _is_text(command.name)
        case ReadChannel():
            return _is_text(command.channel)
        case _:
            return False


def result_parcel(value: Any) -> Parcel:
    """As `parcel`, for a worker's result: what the manager would not take is refused here, by name.

    Raises:
        DataError: It is, or holds, an object of a driver's own.
    """
    sent = parcel(value, _look)
    if isinstance(sent, msgspec.msgpack.Ext):
        unpack(sent)
    return sent


def answer_with(number: int, result: Any) -> Answer:
    """The answer to an Ask that has been done.

    Raises:
        DataError: Its result is, or holds, an object of a driver's own.
    """
    if type(result) is Scalar and type(result.value) is float and result.metadata is None and _is_text(result.unit):
        return Answer(number, reading=result)
    return Answer(number, result_parcel(result))


def _look(part: Any) -> None:
    """Refuse a part that would be refused at the other end, before any method of its class is asked to pickle it."""
    where = type(part).__module__
    if not isinstance(part, type) and where.partition(".")[0] not in _PACKAGES:
        raise DataError(f"an object of {where}.{type(part).__name__} does not leave its worker; return plain values")


def unpack(value: Parcel) -> Any:
    """The value of a worker's parcel.

    Raises:
        DataError: It holds what may not travel.
    """
    if not isinstance(value, msgspec.msgpack.Ext):
        return value
    if value.code != _PICKLED:
        raise DataError(f"a value of unknown kind {value.code}")
    try:
        return _Unpickler(io.BytesIO(value.data)).load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"a value that cannot be read: {type(error).__name__}: {error}") from error


def unpack_trusted(value: Parcel) -> Any:
    """The value of the manager's parcel, in a worker: it may hold any class, also one made in a notebook."""
    return pickle.loads(value.data) if isinstance(value, msgspec.msgpack.Ext) else value


class _Unpickler(pickle.Unpickler):
    """Makes values and nothing else: whatever a pickle may name here is a class of values, or rebuilds an array.

    A package as a whole would not do: numpy and duodaq hold functions that run what they are given.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("builtins", "range"):
            return _short_range
        if (module_name, global_name) in _BY_NAME:
            return super().find_class(module_name, global_name)
        package, _, rest = module_name.partition(".")
        if "." not in global_name and (
            package in ("numpy", "pathlib") or (package == "duodaq" and rest.partition(".")[0] in _OF_DUODAQ)
        ):
            found = super().find_class(module_name, global_name)
            if _is_of_values(found):
                return found
        what = "a class of a driver's own" if package == "cloudpickle" else f"{module_name}.{global_name}"
        raise DataError(f"an object of {what} does not leave its worker; return plain values")


def _is_of_values(found: Any) -> bool:
    if not isinstance(found, type):
        return False
    kind: type[Any] = found
    if issubclass(kind, _VALUES):
        return True
    return kind.__module__.startswith("duodaq.") and (dataclasses.is_dataclass(kind) or hasattr(kind, "feed"))


def _short_range(*ends: int) -> range:
    found = range(*ends)
    if not -_LONGEST_RANGE <= found.stop - found.start <= _LONGEST_RANGE:  # somebody might make a list of it
        raise DataError(f"{found} does not leave its worker: it is too long")
    return found


def error_parts(error: BaseException) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """An error and its cause as they travel."""
    cause = error.__cause__
    return error_to_wire(error), None if cause is None else error_to_wire(cause)


def error_of(error: dict[str, Any], cause: dict[str, Any] | None = None) -> Exception:
    """The error that these parts are."""
    made = error_from_wire(error)
    if cause is not None:
        made.__cause__ = error_from_wire(cause)
    return made


def encode(message: Message) -> bytes:
    """A sentence as it travels; what is no text in it (a device's bytes, decoded with surrogates) is spelled out."""
    try:
        return _encode(message)
    except UnicodeEncodeError:
        return _encode(_spelled_out(message))


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_spelled_out(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_spelled_out(k): _spelled_out(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: _spelled_out(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    return value


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_encode = msgspec.msgpack.Encoder(enc_hook=parcel).encode
decode_from_manager: Any = msgspec.msgpack.Decoder(FromManager).decode
decode_from_worker: Any = msgspec.msgpack.Decoder(FromWorker).decode
