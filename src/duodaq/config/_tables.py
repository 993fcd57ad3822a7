"""The tables of a lab file, key by key. Every key that may stand in one is named here, and nothing else may."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from duodaq.config._words import and_list, kind, known_unit
from duodaq.model import Cause, SafeAction, VisaDefinition, WebDefinition
from duodaq.units import parse_duration_s

_CAUSES = tuple(cause.value for cause in Cause)
_USB = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(:.+)?")
_SOCKET = re.compile(r"\d+-\d+(\.\d+)*")
_VISA_SOCKET = re.compile(r"TCPIP\d*::(?P<host>.+)::(?P<port>\d+)::SOCKET", re.IGNORECASE)
_VISA_SERIAL = re.compile(r"ASRL(?P<path>.+?)(::INSTR)?", re.IGNORECASE)
_VISA_RESOURCE = re.compile(r"(TCPIP|VICP|USB|GPIB|ASRL|PXI|VXI)[^:]*::.+|ASRL.+", re.IGNORECASE)


def _duration(value: Any) -> Any:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f'must be a duration such as "5 s" or "200 ms", not {kind(value)}')
    seconds = parse_duration_s(value)
    if seconds is None:
        raise ValueError('cannot be "never" here; write a duration such as "5 s"')
    if not math.isfinite(seconds):
        raise ValueError('must end some time; write a duration such as "5 s"')
    return seconds


def _deadline(value: Any) -> float | None:
    return None if value == "never" else _duration(value)


Duration = Annotated[float, BeforeValidator(_duration)]
Positive = Annotated[float, BeforeValidator(_duration), Field(gt=0)]


_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB)")
_UNITS = {"MB": 10**6, "GB": 10**9}
_LEAST_MEMORY = 50 * 10**6


def _memory(value: Any) -> int:
    found = _MEMORY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'must be an amount of memory such as "500 MB" or "2 GB", not {kind(value)}')
    amount = int(float(found[1]) * _UNITS[found[2]])
    if amount < _LEAST_MEMORY:
        raise ValueError(f'must be "50 MB" at least, not "{value}": a worker could not even begin')
    return amount


@dataclass(frozen=True)
class Deadlines:
    """How long calls may take: all of them, and those methods that have their own."""

    default: float | None = 5.0
    methods: dict[str, float | None] = field(default_factory=dict[str, "float | None"])


def _deadlines(value: Any) -> Deadlines:
    if not isinstance(value, dict):
        return Deadlines(_deadline(value))
    table = cast("dict[str, Any]", value)
    found: dict[str, float | None] = {}
    for name, text in table.items():
        try:
            found[name] = _deadline(text)
        except ValueError as error:
            raise ValueError(f'"{name}" {_as_predicate(error)}') from None
    return Deadlines(found.pop("default", 5.0), found)


def _as_predicate(error: ValueError) -> str:
    text = str(error)
    return text if text.startswith(("must", "cannot")) else f"is wrong: {text}"


@dataclass(frozen=True)
class Settings:
    """Settings that are watched (a list of names) or applied at start (a table)."""

    watched: tuple[str, ...] = ()
    applied: dict[str, Any] = field(default_factory=dict[str, Any])


def _settings(value: Any) -> Settings:
    if isinstance(value, dict):
        return Settings(applied=cast("dict[str, Any]", value))
    names = _strings(value)
    if names is None:
        raise ValueError(
            'must be a list of names to watch, ["nplc"], or a table of values to apply, { nplc = 10 }; '
            f"it is {kind(value)}"
        )
    return Settings(watched=tuple(names))


def _strings(value: Any) -> list[str] | None:
    """`value` if it is a list of strings."""
    items = cast("list[Any]", value) if isinstance(value, list) else [None]
    return [item for item in items if isinstance(item, str)] if all(isinstance(i, str) for i in items) else None


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f'must be a string of the bytes to send, such as "ST\\r", not {kind(value)}')
    if not value:
        raise ValueError("is empty; leave the key out if there is nothing to send")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("may only hold characters up to U+00FF, one for each byte") from None


def _safe_action(value: Any) -> SafeAction:
    forms = 'write "hold", "stop", { call = "method" } or { bytes = "ST\\r" }'
    if value == "hold":
        return SafeAction("hold")
    if value == "stop":
        return SafeAction("stop")
    if not isinstance(value, dict):
        raise ValueError(f"{kind(value)} is not a safe action; {forms}")
    table = cast("dict[str, Any]", value)
    if set(table) == {"bytes"}:
        return SafeAction("bytes", data=_bytes(table["bytes"]))
    arguments = table.get("args", [])
    if "call" in table and set(table) <= {"call", "args"} and isinstance(table["call"], str):
        if not isinstance(arguments, list):
            raise ValueError(f"args must be a list, not {kind(arguments)}")
        return SafeAction("call", call=table["call"], args=tuple(cast("list[Any]", arguments)))
    raise ValueError(f"a table with {and_list(map(repr, table)) if table else 'nothing'} is not a safe action; {forms}")


class Table(BaseModel):
    """A table of a lab file: strict about types, and no key that is not named.

    Nothing is built before a file is read, and then one schema for all tables that are in it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


EMPTY: Any = Field({}, validate_default=True)
"""Of a table that a file need not have: a model's instance would have its schema built when this is imported."""


class LabTable(Table):
    name: str | None = None
    """What the lab is called, also by `duodaq.connect(name)`. Default: the file's name."""
    recording: str | None = None
    """The folder in which recordings are made. Default: `"runs"`."""
    record_wire: bool = False
    """Whether the wire log goes with every recording."""
    finalise: list[Literal["parquet", "hdf5"]] = []
    """What every recording is turned into at its end, beside the lab: `["parquet"]`, `["hdf5"]` or both."""
    keep_journal: bool = True
    """Whether the journal's rows stay once Parquet files hold them, read back and found equal; needs `finalise` with
    `"parquet"`.
    """
    shutdown: Positive = 10.0
    """How long a shutdown may take in all."""


class RuntimeTable(Table):
    worker: Literal["inline", "thread", "process"]
    """Where the runtime lives: `"inline"`, in the manager's event loop, `"thread"`, in a thread of its own, or
    `"process"`, in a process that is replaced when it dies or hangs.
    """
    memory: Annotated[int, PlainValidator(_memory)] = 2 * 2**30
    """How much private memory each worker process of the runtime, `"own"` ones too, may take on top of what it begins
    with; more raises `MemoryError` in it; refused where no worker of the runtime is a process. Default: `"2 GB"`.
    """


class V2Table(RuntimeTable):
    worker: Literal["inline", "thread", "process"] = "process"


class V4Table(RuntimeTable):
    worker: Literal["inline", "thread", "process"] = "inline"


class RuntimesTable(Table):
    v2: V2Table = EMPTY
    v4: V4Table = EMPTY


class SerialTable(Table):
    path: Annotated[str | None, AfterValidator(lambda value: _path(value))] = None
    """The device, `"/dev/ttyUSB0"`; this or `usb`."""
    usb: str | None = None
    """The adapter by what it is, vendor, product and serial number: `"0403:6001:A50285BI"`, or `"0403:6001"`."""
    location: Annotated[str | None, AfterValidator(lambda value: _location(value))] = None
    """Which USB socket, `"1-2.3"`, where several fit `usb`."""
    interface: Annotated[int | None, Field(ge=0, le=255)] = None
    """Which line of an adapter with several."""
    baud: Annotated[int, Field(gt=0, le=100_000_000)] = 9600
    """Bits a second."""
    bytesize: Literal[5, 6, 7, 8] = 8
    """Bits of a character."""
    parity: Literal["N", "E", "O", "M", "S"] = "N"
    """None, even, odd, mark or space."""
    stopbits: Annotated[float, AfterValidator(lambda value: _stopbits(value))] = 1
    """1, 1.5 or 2."""
    rtscts: bool = False
    """Whether the wires RTS and CTS say when to send."""
    xonxoff: bool = False
    """Whether XON and XOFF do."""

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> SerialTable:
        if (self.path is None) == (self.usb is None):
            raise ValueError('needs either path = "/dev/ttyUSB0" or usb = "0403:6001:SERIAL", and not both')
        if self.usb is not None and not _USB.fullmatch(self.usb):
            raise ValueError(f'usb = "{self.usb}" is not vendor:product[:serial], such as "0403:6001:A50285BI"')
        for key in ("location", "interface"):
            if self.usb is None and getattr(self, key) is not None:
                raise ValueError(f'{key} goes with usb = "vendor:product"; a path needs none')
        return self


def _path(value: str | None) -> str | None:
    if value == "":
        raise ValueError('is empty; write for example path = "/dev/ttyUSB0"')
    return value


def _location(value: str | None) -> str | None:
    if value is not None and not _SOCKET.fullmatch(value):
        raise ValueError(f'"{value}" is no USB socket, such as "1-2.3" (`duodaq check` shows those in use)')
    return value


def _stopbits(value: float) -> float:
    if value not in (1, 1.5, 2):
        raise ValueError(f"must be 1, 1.5 or 2, not {value:g}")
    return value


class VirtualTable(Table):
    pty: Annotated[str | None, AfterValidator(lambda value: _link(value))] = None
    """The link to a device that one program at a time opens as if the cable led there. Linux only."""
    tcp: Annotated[str | None, BeforeValidator(lambda value: _listen(value))] = None
    """A port of this machine, `5030`, or `"host:port"` to listen at another address."""
    clients: Annotated[int, Field(ge=1, le=256)] = 32
    """How many programs may be connected by TCP at once."""
    stall: Positive = 10.0
    """After which time a program is cut off that has written half a command, or does not read what it asked for."""

    @model_validator(mode="after")
    def _some_way_in(self) -> VirtualTable:
        if self.pty is None and self.tcp is None:
            raise ValueError('needs pty = "run/stage" (a device that programs open), tcp = 5030, or both')
        return self


def _link(value: str | None) -> str | None:
    if value is not None and not value.strip("/"):
        raise ValueError('must name the device that programs open, such as pty = "run/stage"')
    return value


def _listen(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 65536:
            raise ValueError(f"must be a TCP port between 1 and 65535, not {value}")
        return f"127.0.0.1:{value}"
    if not isinstance(value, str):
        raise ValueError(f'must be a TCP port, 5030, or "host:port", not {kind(value)}')
    return _tcp(value)


class VisaTable(Table):
    resource: Annotated[str, AfterValidator(lambda value: _resource(value))]
    """The name of a VISA resource, `"GPIB0::9::INSTR"`."""
    library: str = ""
    """What PyVISA's `ResourceManager` is given: `"@py"`, `"@ivi"`, the path of a library. Default: whichever is
    installed.
    """
    attributes: dict[str, Any] = {}
    """PyVISA's attributes, set when it is opened."""


class WrongTableError(ValueError):
    """A value that may be a table is one, and `findings` about that `table` are why it is refused."""

    def __init__(self, table: type[Table], findings: ValidationError) -> None:
        super().__init__(str(findings))
        self.table, self.findings = table, findings


class PortTable(Table):
    serial: SerialTable | None = None
    """A serial line: `{ path = "/dev/ttyUSB0", baud = 9600 }`."""
    tcp: Annotated[str | None, BeforeValidator(lambda value: _tcp(value))] = None
    """A socket: `"host:port"`."""
    visa: Annotated[str | VisaDefinition | None, PlainValidator(lambda value: _visa(value))] = None
    """A VISA resource name, or `{ resource = "GPIB0::9::INSTR", library = "@ivi" }`; the name of a raw socket,
    `"TCPIP0::host::port::SOCKET"`, is the same as `tcp`.
    """
    virtual: VirtualTable | None = None
    """Where programs that know nothing of duodaq use this port: `{ pty = "run/stage" }`."""
    codec: str | None = None
    """The protocol: `"ell14"`, `"esp300"`, `"maitai"`, `"newport1830c"` or `"scpi"`."""
    timeout: Positive = 2.0
    """How long a reply may take. It takes the place of the timeout that a driver class opened the device with."""
    idle_ms: Annotated[float, Field(gt=0)] | None = None
    """Without a codec: the silence, in milliseconds, that ends an exchange."""
    hold_max: Duration = 0.2
    """How long one driver call may keep the line before others get their turn between its exchanges."""

    @model_validator(mode="after")
    def _one_way_out(self) -> PortTable:
        given = [name for name in ("serial", "tcp", "visa") if getattr(self, name) is not None]
        if len(given) == 1:
            return self
        example = 'serial = { path = "/dev/ttyUSB0", baud = 9600 } or tcp = "host:port"'
        if not given:
            raise ValueError(f"says nowhere what it is connected to; write {example}")
        raise ValueError(f"has {and_list(given)}, and a port is one line; keep one of them")


def _tcp(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f'must be "host:port", not {kind(value)}')
    host, colon, number = value.rpartition(":")
    if not (host and colon and number.isdecimal() and 0 < int(number) < 65536):
        raise ValueError(f'"{value}" is not "host:port", such as "192.168.1.20:5025"')
    return value


def _visa(value: Any) -> str | VisaDefinition:
    """``"host:port"`` for a plain name of a raw socket, which needs no VISA library; else what the library is given."""
    if isinstance(value, dict):
        return _visa_table(cast("dict[str, Any]", value))
    if not isinstance(value, str):
        raise ValueError(f'must be a VISA resource name, or {{ resource = "…", library = "@py" }}; it is {kind(value)}')
    if match := _VISA_SOCKET.fullmatch(value):
        return _tcp(f"{match['host']}:{match['port']}")
    if match := _VISA_SERIAL.fullmatch(value):
        path = match["path"] if not match["path"].isdecimal() else f"/dev/ttyS{int(match['path']) - 1}"
        raise ValueError(
            f'"{value}" needs no VISA library: write serial = {{ path = "{path}", baud = 9600 }}; or, to use one all '
            f'the same, visa = {{ resource = "{value}", library = "@ivi" }}'
        )
    return VisaDefinition(_resource(value))


def _visa_table(table: dict[str, Any]) -> VisaDefinition:
    try:
        found = VisaTable.model_validate(table)
    except ValidationError as error:
        raise WrongTableError(VisaTable, error) from None
    return VisaDefinition(found.resource, found.library, found.attributes)


def _resource(name: str) -> str:
    if _VISA_RESOURCE.fullmatch(name):
        return name
    raise ValueError(
        f'"{name}" is no VISA resource name, such as "TCPIP0::192.168.1.20::hislip0::INSTR", "GPIB0::9::INSTR" or '
        '"USB0::0x0957::0x1F01::MY12345678::INSTR"'
    )


class PollTable(Table):
    read: str | None = None
    """The attribute, parameter or signal that is read; this or `call`."""
    call: str | None = None
    """The method that is called."""
    unit: Annotated[str, AfterValidator(known_unit)] = ""
    """The unit of its result."""
    every: Positive = 1.0
    """How often."""
    args: list[Any] = []
    """What the method is given."""

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> PollTable:
        if (self.read is None) == (self.call is None):
            raise ValueError('needs either read = "attribute" or call = "method", and not both')
        if self.args and self.read is not None:
            raise ValueError("args go with call; an attribute that is read takes none")
        return self


class AxisTable(Table):
    number: Annotated[int, Field(ge=0)]
    """The axis number that the controller uses."""
    unit: Annotated[str, AfterValidator(known_unit)] = "mm"
    """Of positions."""
    limits: Annotated[tuple[float, float] | None, BeforeValidator(lambda value: _limits(value))] = None
    """`[lowest, highest]`, enforced before anything is sent."""


def _limits(value: Any) -> Any:
    numbers = cast("list[Any]", value) if isinstance(value, list) else []
    if len(numbers) != 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"must be two numbers, [lowest, highest], not {kind(value)}")
    if not numbers[0] < numbers[1]:
        raise ValueError(f"must rise: [{numbers[1]}, {numbers[0]}] rather than [{numbers[0]}, {numbers[1]}]")
    return (float(numbers[0]), float(numbers[1]))


class SafeTable(Table):
    shutdown: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None
    """When the lab is shut down. Default: `"hold"`."""
    crash: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None
    """When its worker, or the lab, dies. Default: `"hold"`."""
    stop_all: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None
    """At a stop-all. Default: `"stop"`."""

    def actions(self) -> dict[Cause, SafeAction]:
        found = {Cause(name): cast("SafeAction | None", getattr(self, name)) for name in _CAUSES}
        return {cause: action for cause, action in found.items() if action is not None}


class InstrumentTable(Table):
    runtime: Literal["v2", "v4"]
    """Where it lives: the classic runtime, or the actors."""
    driver: str
    """`"package.module:Class"`, `"./file.py:Class"`, or an actor: `"duodaq:Elliptec"`, `"duodaq:Esp300"`,
    `"duodaq:MaiTai"`, `"duodaq:Newport1830C"`, `"duodaq:PvcamActor"`, `"duodaq:ScpiActor"`.
    """
    port: str | None = None
    """The port it is on; without one the driver opens its device itself."""
    args: dict[str, Any] = {}
    """What the class takes, by name; `"@dmm"` is a handle of the lab's instrument `dmm`, wherever that lives."""
    settings: Annotated[Settings, PlainValidator(_settings)] = Settings()
    """A list of names is watched, `["nplc"]`; a table is applied at start, `{ nplc = 10 }`."""
    limits: dict[str, Annotated[tuple[float, float], BeforeValidator(lambda value: _limits(value))]] = {}
    """`limits.SETTING = [lowest, highest]`: what the setting may be set to by a command, enforced before anything is
    sent; not what a V2 class sets itself inside its own methods.
    """
    deadline: Annotated[Deadlines, PlainValidator(_deadlines)] = Deadlines()
    """How long a call may take, or `"never"`; a table gives methods their own: `{ default = "5 s", reading = "30 s"
    }`. Default: `"5 s"`.
    """
    kill_after: Positive = 10.0
    """How long after its deadline an overdue V2 call makes the instrument Hung, and for how long its worker process
    may give no sign of progress.
    """
    poll: dict[str, PollTable] = {}
    """`poll.CHANNEL`: a channel that is read regularly."""
    axes: dict[str, AxisTable] = {}
    """`axes.AXIS`: an axis that moves."""
    safe: SafeTable = EMPTY
    """What makes it safe, by cause."""
    stop: Annotated[bytes | None, PlainValidator(_bytes)] = None
    """The bytes that stop it, written beside a driver that is blocked. Default: the codec's."""
    passive: Annotated[frozenset[str] | bool, PlainValidator(lambda value: _passive(value))] = frozenset()
    """V2 only: the methods and parameters that neither move nor emit, or `true` for all; the others are refused while
    a stop-all is latched.
    """
    worker: Literal["", "inline", "thread", "process", "own"] = ""
    """Where it lives: as in `[runtimes]`, or `"own"`, a process that it shares with nobody. Default: the runtime's;
    `"own"` for `duodaq:PvcamActor`.
    """
    required: bool = False
    """Whether its failure to start fails the runtime."""
    autostart: bool = True
    """Whether it starts with its runtime."""
    options: dict[str, Any] = {}
    """How its runtime hosts it."""


def _passive(value: Any) -> frozenset[str] | bool:
    if isinstance(value, bool):
        return value
    names = _strings(value)
    if names is None:
        raise ValueError(
            'must be true, or a list of the methods and parameters that neither move nor emit, ["get_rate"]; '
            f"it is {kind(value)}"
        )
    return frozenset(names)


LEAST_TOKEN = 16


def _token(value: str | None) -> str | None:
    if value is not None and (len(value) < LEAST_TOKEN or not value.isascii() or not value.isprintable()):
        raise ValueError(f"must be {LEAST_TOKEN} plain characters or more, such as `openssl rand -hex 16` prints")
    return value


class WebTable(Table):
    host: str = "127.0.0.1"
    """The address to listen at; any but one of this machine alone needs a token."""
    port: Annotated[int | None, Field(ge=0, le=65535)] = None
    """The TCP port; 0 for any. Default: the first free one from 8400."""
    token: Annotated[str | None, AfterValidator(_token)] = None
    """What an operator shows, 16 characters or more; with it everybody is asked."""
    viewer_token: Annotated[str | None, AfterValidator(_token)] = None
    """What somebody shows who may look and change nothing."""
    names: list[str] = []
    """Further names under which browsers may call it, behind a proxy; they need a token."""
    arming: list[str] = []
    """The instruments, lasers above all, that may be armed from there: `["laser"]`."""

    @model_validator(mode="after")
    def _no_stranger_without_a_token(self) -> WebTable:
        definition = WebDefinition(self.host, token=self.token, viewer_token=self.viewer_token)
        if definition.is_open and not definition.is_local:
            raise ValueError(f'host = "{self.host}" lets other machines in, and needs a token = "…"')
        if definition.is_open and self.names:
            raise ValueError('names are for those who come from elsewhere, and need a token = "…"')
        return self
