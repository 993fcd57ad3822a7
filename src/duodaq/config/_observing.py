"""The tables of a lab file about who looks at the lab, and what is watched in it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from duodaq.config._left_out import shown_address
from duodaq.config._tables import Duration, Positive, Table
from duodaq.config._words import kind, known_unit

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB)")
_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


def _channel(value: str) -> str:
    instrument, dot, channel = value.partition(".")
    if not (instrument and dot and channel):
        raise ValueError(f'"{value}" is no channel, such as "dmm.voltage": the instrument, a point, and its channel')
    return value


def _url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise ValueError(f'"{shown_address(value)}" is no address such as "https://example.org/hook"')
    return value


def _hook(value: str | None) -> str | None:
    if _url(value) is not None and "@" in urlsplit(value or "").netloc:
        raise ValueError("has a user and a password, which are sent nowhere, and no lab file holds one")
    return value


def _addresses(value: list[str]) -> list[str]:
    for one in value:
        if not _ADDRESS.fullmatch(one):
            raise ValueError(f'"{one}" is no address such as "someone@example.org"')
    return value


def _server(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f'"{value}" is not "host:port", such as "smtp.example.org:587"')
    return value


def _size(value: Any) -> Any:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'must be a size such as "10 MB", not {kind(value)}')
    size = int(float(found[1]) * _UNITS[found[2]])
    if size < 10**4:
        raise ValueError(f'must be "10 kB" at least, not "{value}"')
    return size


class AlarmTable(Table):
    channel: Annotated[str, AfterValidator(_channel)]
    """The instrument, a point, and its channel: `"dmm.voltage"`, `"stage.x.position"`."""
    unit: Annotated[str, AfterValidator(known_unit)] | None = None
    """Of `low`, `high`, `hysteresis`, and of `rate` in a second; values are converted to it (`"mV"` where the channel
    is in V). Default: the channel's own.
    """
    low: float | None = None
    """Raised below this."""
    high: float | None = None
    """Raised above this."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """Raised when it changes faster than this in a second, from one value to the next."""
    stale: Positive | None = None
    """Raised when there was no value for so long."""
    hysteresis: Annotated[float, Field(ge=0)] = 0.0
    """How far the value has to come back behind `low` or `high`."""
    delay: Duration = 0.0
    """For how long it has to be wrong; `stale` has no other time than its own."""
    latch: bool = False
    """Whether it stays until somebody acknowledges it."""
    pause_scan: bool = False
    """Whether scans wait before their next point until it is over or acknowledged."""
    stop_all: bool = False
    """Whether it stops everything that moves or emits, and latches that."""
    webhook: Annotated[str | None, AfterValidator(_hook)] = None
    """A URL that is sent JSON when it is raised and when that is over."""
    email: Annotated[list[str], AfterValidator(_addresses)] = Field([])
    """Addresses that are told the same; needs `[mail]`."""
    note: str = ""
    """A word for whoever has to act."""

    @model_validator(mode="after")
    def _something_to_watch(self) -> AlarmTable:
        if self.low is None and self.high is None and self.rate is None and self.stale is None:
            raise ValueError('watches nothing; write low = 1.0, high = 5.0, rate = 0.5 (a second) or stale = "10 s"')
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        if self.hysteresis and self.low is None and self.high is None:
            raise ValueError("hysteresis goes with low or high, and neither is here")
        if self.low is not None and self.high is not None and self.hysteresis >= self.high - self.low:
            raise ValueError(f"hysteresis = {self.hysteresis:g} leaves nothing between low and high")
        if self.unit is not None and self.low is None and self.high is None and self.rate is None:
            raise ValueError("unit goes with low, high or rate, and none of them is here")
        if self.delay and self.low is None and self.high is None and self.rate is None:
            raise ValueError("delay goes with low, high or rate; stale is a time already")
        return self


class MailTable(Table):
    server: Annotated[str, AfterValidator(_server)]
    """Where mail goes: `"smtp.example.org:587"`."""
    sender: Annotated[str, AfterValidator(lambda value: _addresses([value])[0])]
    """Who it is from."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is kept private: begun in the open and then secured, secured from the first byte, or not."""
    user: str | None = None
    """Who logs in."""
    password_env: str | None = None
    """The environment variable that holds the password: no lab file holds one."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> MailTable:
        if (self.user is None) != (self.password_env is None):
            raise ValueError('needs both user = "…" and password_env = "NAME" (of an environment variable), or neither')
        return self


class MetricsTable(Table):
    port: Annotated[int, Field(ge=1, le=65535)]
    """The TCP port of this machine on which Prometheus finds `/metrics`; needs `duodaq[web]`."""


class LoggingTable(Table):
    file: str
    """The file into which everything that is logged goes, as JSON, one object a line."""
    max: Annotated[int, BeforeValidator(_size)] = 10_000_000
    """How long it may become; then it is put aside as `FILE.1`."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 5
    """How many of those are kept."""


class TelemetryTable(Table):
    otlp: Annotated[str, AfterValidator(_url)]
    """Where an OpenTelemetry collector takes traces by HTTP: `"http://localhost:4318"`; needs `duodaq[otel]`."""


class FlightTable(Table):
    folder: str | None = None
    """Where the flight recorder writes. Default: `"flight"`."""
    last: Positive = 60.0
    """How long a time it writes."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 10
    """How many such folders are kept; with 0 it writes nothing."""
