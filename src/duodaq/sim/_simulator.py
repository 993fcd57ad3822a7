"""What every simulated instrument promises to the server that carries it: bytes in, bytes out, no waiting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Reply(NamedTuple):
    """Bytes for `client`, ready `delay_s` after the moment they were asked for (the line's own time comes on top).

    `ends`: a message ends with them, which is marked on lines that can.
    """

    delay_s: float
    data: bytes
    client: int = 0
    ends: bool = True


@dataclass(frozen=True)
class Line:
    """The line an instrument has: its speed, how long it thinks before it answers, how many clients it can have.

    A serial line has one client at a time; an instrument with a socket of its own answers each client separately.
    """

    baud: int = 9600
    processing_s: float = 0.002
    max_clients: int = 1

    def byte_s(self) -> float:
        """Seconds one byte takes on the wire, start and stop bit included."""
        return 10.0 / self.baud


@dataclass
class Tally:
    """What a simulator counted itself: the other side of every ledger.

    `produced` counts replies that carry a value, by channel. `interleavings` counts commands that came in while the
    reply to an earlier query had not been fetched (a break-in excepted) or that were mixed into another's line.
    """

    commands: int = 0
    exchanges: int = 0
    interleavings: int = 0
    misframed: int = 0
    impatient: int = 0
    produced: Counter[str] = field(default_factory=lambda: Counter[str]())

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain values, for reports and the optical table."""
        return {
            "commands": self.commands,
            "exchanges": self.exchanges,
            "interleavings": self.interleavings,
            "misframed": self.misframed,
            "impatient": self.impatient,
            "produced": dict(self.produced),
        }


class Simulator(Protocol):
    """One simulated instrument, sans-IO. Time is CLOCK_MONOTONIC in seconds and comes from outside."""

    name: str
    model: str
    line: Line
    tally: Tally
    paced: bool
    """False: internal waiting (integration, processing) is skipped; motion and settling are never skipped."""

    def open_session(self, client: int, now_s: float) -> bytes:
        """A client has connected; what the instrument says unasked (nothing, as a rule)."""
        ...

    def close_session(self, client: int) -> None:
        """A client has gone; what it left half-written goes with it where the instrument works that way."""
        ...

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Take bytes from `client`, of which `pending` bytes of earlier replies are not yet fetched."""
        ...

    def due(self, now_s: float) -> list[Reply]:
        """What has become ready by itself: replies held back by a wait, unsolicited messages."""
        ...

    def due_at_s(self) -> float | None:
        """When `due` wants to be called next; None if nothing is waiting."""
        ...

    def power_cycle(self, now_s: float) -> None:
        """Off and on again: volatile state is lost, the mechanics stay where they are."""
        ...

    def report(self) -> dict[str, Any]:
        """The tally and whatever else a test may compare with."""
        ...


@runtime_checkable
class BusInstrument(Protocol):
    """What an instrument of IEEE 488 has beside its bytes, so that it can be served by HiSLIP and VXI-11 too."""

    @property
    def service_requests(self) -> int:
        """How often it has asked for service."""
        ...

    def serial_poll(self, now_s: float) -> int:
        """The status byte, with RQS in bit 6, which this clears."""
        ...

    def device_clear(self, client: int = 0) -> None:
        """Empty what is `client`'s in its buffers, and give up what it waits for; settings and status stay."""
        ...
