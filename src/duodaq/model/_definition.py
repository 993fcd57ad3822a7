"""What a lab is made of, as plain values: the lab file is turned into these, and so may a program do directly."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from duodaq.model._alarm import AlarmDefinition, MailDefinition
from duodaq.model._life import Cause, RuntimeName


@dataclass(frozen=True, slots=True)
class VirtualDefinition:
    """Where programs that know nothing of duodaq use a port: `pty`, the path of a link to a device that one of them
    opens at a time; `tcp`, ``"host:port"`` for up to `clients` at once. One that stops in the middle of something is
    cut off after `stall_s`.
    """

    pty: str | None = None
    tcp: str | None = None
    clients: int = 32
    stall_s: float = 10.0


@dataclass(frozen=True, slots=True)
class VisaDefinition:
    """A resource that a VISA library opens: its name, and the library as PyVISA has it (``"@py"``, ``"@ivi"``, a path;
    empty: whichever is installed). `attributes` are set when it is open, by PyVISA's names.
    """

    resource: str
    library: str = ""
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class PortDefinition:
    """One line to instruments. Exactly one of `serial`, `tcp`, `visa` is set.

    `serial`: path (or usb = "vid:pid:serial", location, interface), baud, bytesize, parity, stopbits, rtscts, xonxoff.
    `tcp`: ``"host:port"``. `visa`: a resource behind a VISA library, which runs in a worker process. `codec` names the
    protocol spoken on it ("esp300", "scpi", "maitai" …), or None.
    """

    name: str
    serial: dict[str, Any] | None = None
    tcp: str | None = None
    codec: str | None = None
    timeout_s: float = 2.0
    idle_ms: float | None = None
    hold_max_s: float = 0.2
    virtual: VirtualDefinition | None = None
    visa: VisaDefinition | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class PollDefinition:
    """One polled channel of a V2 instrument: an attribute to `read` or a method to `call`, every `every_s` seconds."""

    channel: str
    every_s: float
    unit: str = ""
    read: str | None = None
    call: str | None = None
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class AxisDefinition:
    """One axis of a motion controller; limits in `unit`, enforced before anything is sent."""

    name: str
    number: int
    unit: str = "mm"
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SafeAction:
    """What makes an instrument safe: hold (do nothing), stop (its stop bytes), a named call, or bytes."""

    kind: Literal["hold", "stop", "call", "bytes"]
    call: str | None = None
    args: tuple[Any, ...] = ()
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class InstrumentDefinition:
    """One instrument, in one runtime.

    `driver` is ``"package.module:Class"``, ``"./file.py:Class"``, or the class itself. `passive` names the methods and
    parameters that neither move nor emit (True: all of them); everything else is refused while a stop is latched.
    `limits` are the least and the greatest value of settings, enforced before anything is sent. `epoch` rises with each
    move from one runtime to the other, and `numbers` are the sequence numbers that the streams go on from then, by
    channel.
    """

    id: str
    runtime: RuntimeName
    driver: str | Callable[..., Any]
    port: str | None = None
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    watched: tuple[str, ...] = ()
    polls: tuple[PollDefinition, ...] = ()
    deadline_s: float | None = 5.0
    method_deadline_s: dict[str, float | None] = field(default_factory=dict[str, float | None])
    kill_after_s: float = 10.0
    axes: tuple[AxisDefinition, ...] = ()
    safe: dict[Cause, SafeAction] = field(default_factory=dict[Cause, SafeAction])
    stop: bytes | None = None
    passive: frozenset[str] | bool = frozenset()
    worker: str = ""
    required: bool = False
    autostart: bool = True
    base_dir: Path | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    epoch: int = 0
    numbers: dict[str, int] = field(default_factory=dict[str, int])


class Owner(NamedTuple):
    """Who writes for an instrument."""

    runtime: RuntimeName
    instrument: str
    epoch: int


_OWNER = re.compile(r"(v2|v4)\.([^@]+)(?:@(\d+))?")


def holder_of(definition: InstrumentDefinition) -> str:
    """In whose name an instrument writes: ``v2.stage``; with its epoch, ``v4.stage@3``, once it has moved."""
    name = f"{definition.runtime}.{definition.id}"
    return f"{name}@{definition.epoch}" if definition.epoch else name


@lru_cache(maxsize=256)
def owner_named(holder: str) -> Owner | None:
    """Which instrument's owner writes in the name of `holder`; None if it is somebody else: a stop, a program."""
    found = _OWNER.fullmatch(holder)
    return None if found is None else Owner(cast("RuntimeName", found[1]), found[2], int(found[3] or 0))


@dataclass(frozen=True, slots=True)
class RuntimeDefinition:
    """Where a runtime runs: ``worker`` is "inline", "thread" or "process".

    `memory_bytes` is how much private memory each of its processes may take on top of what it begins with.
    """

    name: RuntimeName
    worker: str = "inline"
    memory_bytes: int | None = 2 * 2**30
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ObserverDefinition:
    """Who looks at a lab: by a `metrics_port` of this machine, a log file, an OTLP collector, a flight recorder.

    `log_file` holds `log_bytes` at most before it is put aside, `log_keep` such files are kept. `flight_dir` is where
    the last `flight_s` seconds are written when something breaks, `flight_keep` times; None: nowhere.
    """

    metrics_port: int | None = None
    log_file: Path | None = None
    log_bytes: int = 10_000_000
    log_keep: int = 5
    otlp: str | None = None
    flight_dir: Path | None = None
    flight_s: float = 60.0
    flight_keep: int = 10


@dataclass(frozen=True, slots=True)
class WebDefinition:
    """Where a lab's page and its HTTP API are served, and who may do what there.

    Without a token it is served to this machine alone, and whoever is logged in there may do everything. `token` is an
    operator's, `viewer_token` lets one look only. `port` None: the first free one from 8400. `names` are further names
    of this machine that browsers use. `arming` names the instruments that may be armed from there: none by default.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    viewer_token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    arming: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether nobody outside this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_open(self) -> bool:
        """Whether it asks nobody who he is."""
        return self.token is None and self.viewer_token is None


@dataclass(frozen=True, slots=True)
class LabDefinition:
    """A whole lab: its ports, its instruments, where its two runtimes run, and what is watched."""

    name: str
    ports: tuple[PortDefinition, ...] = ()
    instruments: tuple[InstrumentDefinition, ...] = ()
    v2: RuntimeDefinition = RuntimeDefinition("v2", "process")
    v4: RuntimeDefinition = RuntimeDefinition("v4")
    directory: Path = Path()
    file: Path | None = None
    recording_dir: Path | None = None
    record_wire: bool = False
    finalise: tuple[str, ...] = ()
    keep_journal: bool = True
    shutdown_s: float = 10.0
    alarms: tuple[AlarmDefinition, ...] = ()
    mail: MailDefinition | None = None
    observers: ObserverDefinition = ObserverDefinition()
    web: WebDefinition = WebDefinition()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
