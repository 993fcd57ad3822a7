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

from duodaq.config._words import and_list, kind
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
    """A table of a lab file: strict about types, and no key that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class LabTable(Table):
    name: str | None = None
    recording: str | None = None
    record_wire: bool = False
    finalise: list[Literal["parquet", "hdf5"]] = []
    keep_journal: bool = True
    shutdown: Positive = 10.0


class RuntimeTable(Table):
    worker: Literal["inline", "thread", "process"]
    memory: Annotated[int, PlainValidator(_memory)] = 2 * 2**30


class V2Table(RuntimeTable):
    worker: Literal["inline", "thread", "process"] = "process"


class V4Table(RuntimeTable):
    worker: Literal["inline", "thread", "process"] = "inline"


class RuntimesTable(Table):
    v2: V2Table = V2Table()
    v4: V4Table = V4Table()


class SerialTable(Table):
    path: Annotated[str | None, AfterValidator(lambda value: _path(value))] = None
    usb: str | None = None
    location: Annotated[str | None, AfterValidator(lambda value: _location(value))] = None
    interface: Annotated[int | None, Field(ge=0, le=255)] = None
    baud: Annotated[int, Field(gt=0, le=100_000_000)] = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O", "M", "S"] = "N"
    stopbits: Annotated[float, AfterValidator(lambda value: _stopbits(value))] = 1
    rtscts: bool = False
    xonxoff: bool = False

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
    tcp: Annotated[str | None, BeforeValidator(lambda value: _listen(value))] = None
    clients: Annotated[int, Field(ge=1, le=256)] = 32
    stall: Positive = 10.0

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
    library: str = ""
    attributes: dict[str, Any] = {}


class WrongTableError(ValueError):
    """A value that may be a table is one, and `findings` about that `table` are why it is refused."""

    def __init__(self, table: type[Table], findings: ValidationError) -> None:
        super().__init__(str(findings))
        self.table, self.findings = table, findings


class PortTable(Table):
    serial: SerialTable | None = None
    tcp: Annotated[str | None, BeforeValidator(lambda value: _tcp(value))] = None
    visa: Annotated[str | VisaDefinition | None, PlainValidator(lambda value: _visa(value))] = None
    virtual: VirtualTable | None = None
    codec: str | None = None
    timeout: Positive = 2.0
    idle_ms: Annotated[float, Field(gt=0)] | None = None
    hold_max: Duration = 0.2

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
    call: str | None = None
    unit: str = ""
    every: Positive = 1.0
    args: list[Any] = []

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> PollTable:
        if (self.read is None) == (self.call is None):
            raise ValueError('needs either read = "attribute" or call = "method", and not both')
        if self.args and self.read is not None:
            raise ValueError("args go with call; an attribute that is read takes none")
        return self


class AxisTable(Table):
    number: Annotated[int, Field(ge=0)]
    unit: str = "mm"
    limits: Annotated[tuple[float, float] | None, BeforeValidator(lambda value: _limits(value))] = None


def _limits(value: Any) -> Any:
    numbers = cast("list[Any]", value) if isinstance(value, list) else []
    if len(numbers) != 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"must be two numbers, [lowest, highest], not {kind(value)}")
    if not numbers[0] < numbers[1]:
        raise ValueError(f"must rise: [{numbers[1]}, {numbers[0]}] rather than [{numbers[0]}, {numbers[1]}]")
    return (float(numbers[0]), float(numbers[1]))


class SafeTable(Table):
    shutdown: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None
    crash: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None
    stop_all: Annotated[SafeAction | None, PlainValidator(_safe_action)] = None

    def actions(self) -> dict[Cause, SafeAction]:
        found = {Cause(name): cast("SafeAction | None", getattr(self, name)) for name in _CAUSES}
        return {cause: action for cause, action in found.items() if action is not None}


class InstrumentTable(Table):
    runtime: Literal["v2", "v4"]
    driver: str
    port: str | None = None
    args: dict[str, Any] = {}
    settings: Annotated[Settings, PlainValidator(_settings)] = Settings()
    limits: dict[str, Annotated[tuple[float, float], BeforeValidator(lambda value: _limits(value))]] = {}
    deadline: Annotated[Deadlines, PlainValidator(_deadlines)] = Deadlines()
    kill_after: Positive = 10.0
    poll: dict[str, PollTable] = {}
    axes: dict[str, AxisTable] = {}
    safe: SafeTable = SafeTable()
    stop: Annotated[bytes | None, PlainValidator(_bytes)] = None
    passive: Annotated[frozenset[str] | bool, PlainValidator(lambda value: _passive(value))] = frozenset()
    worker: Literal["", "inline", "thread", "process", "own"] = ""
    required: bool = False
    autostart: bool = True
    options: dict[str, Any] = {}


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
    port: Annotated[int | None, Field(ge=0, le=65535)] = None
    token: Annotated[str | None, AfterValidator(_token)] = None
    viewer_token: Annotated[str | None, AfterValidator(_token)] = None
    names: list[str] = []
    arming: list[str] = []

    @model_validator(mode="after")
    def _no_stranger_without_a_token(self) -> WebTable:
        definition = WebDefinition(self.host, token=self.token, viewer_token=self.viewer_token)
        if definition.is_open and not definition.is_local:
            raise ValueError(f'host = "{self.host}" lets other machines in, and needs a token = "…"')
        if definition.is_open and self.names:
            raise ValueError('names are for those who come from elsewhere, and need a token = "…"')
        return self
