"""What the broker and those who use its ports from another process say to each other: one struct for each sentence."""

from __future__ import annotations

from typing import Any, TypeAlias

from duodaq.link import Message
from duodaq.ports._lock import LockOutcome

# ---- the broker's side says ------------------------------------------------------------------------------------------


class Granted(Message, frozen=True, tag="g"):
    """The lease of a ticket is there; or, with an error, will not be."""

    ticket: int
    error: dict[str, Any] | None = None


class Ended(Message, frozen=True, tag="e"):
    """An exchange has ended."""

    exchange: int
    reply: bytes
    error: dict[str, Any] | None = None


class Written(Message, frozen=True, tag="w"):
    """All of an exchange's request has been handed to the line; whether it is answered, as the port's codec says."""

    exchange: int
    t_ns: int
    answered: bool = True


class Heard(Message, frozen=True, tag="h"):
    """Bytes for a seat between its exchanges."""

    seat: int
    data: bytes


class Stopped(Message, frozen=True, tag="x"):
    """The stop bytes of a StopPort are on the wire since `t_ns`; or, with an error, are not."""

    number: int
    t_ns: int
    error: dict[str, Any] | None = None


class LockTold(Message, frozen=True, tag="v"):
    """What became of a LockAsk: in which state the port is for that seat now; or, with an error, that it failed."""

    number: int
    outcome: LockOutcome | None = None
    error: dict[str, Any] | None = None


class PortFacts(Message, frozen=True):
    """A port as a program outside has to know it: its address, its limits, and what its codec says of itself."""

    name: str
    serial: dict[str, Any] | None
    tcp: str | None
    timeout_s: float
    idle_ms: float | None
    hold_max_s: float
    codec: str | None = None
    write_terminator: bytes = b""
    longest_reply_s: float = 0.0
    status_query: bytes | None = None
    visa: str | None = None


class Ports(Message, frozen=True, tag="o"):
    """The first sentence to a program outside: which ports the lab has."""

    lab: str
    ports: list[PortFacts]


# ---- the user's side says --------------------------------------------------------------------------------------------


class TicketAsk(Message, frozen=True, tag="T"):
    """Queue for a port."""

    ticket: int
    port: str
    holder: str
    lane: int
    timeout_s: float | None
    epoch: int | None


class TicketEnd(Message, frozen=True, tag="E"):
    """Give a lease back, or withdraw from the queue."""

    ticket: int


class SeatFacts(Message, frozen=True):
    """A seat as the owner of the port must know it."""

    number: int
    hold_max_s: float | None
    idle_s: float | None
    hears: bool
    renews: bool
    alone: bool = False
    impatient: bool = False
    first_s: float | None = None


class Exchanged(Message, frozen=True, tag="X"):
    """Make an exchange: under the lease of `ticket` if that is not 0, else from `seat` if there is one, else alone.

    `framing` is True where the port's codec says what is answered.
    """

    exchange: int
    port: str
    request: bytes
    framing: Any
    timeout_s: float
    tells_written: bool
    moving: bool
    epoch: int | None
    trace_id: str | None
    ticket: int = 0
    seat: SeatFacts | None = None
    holder: str = ""
    lane: int = 2
    wait_s: float | None = None
    wait_epoch: int | None = None


class SeatEnd(Message, frozen=True, tag="L"):
    """Leave a seat when the exchange in hand has ended, or (`now`) vacate it at once."""

    seat: int
    now: bool


class Reading(Message, frozen=True, tag="R"):
    """Whether the user of a seat waits for bytes."""

    seat: int
    reading: bool


class Abandoned(Message, frozen=True, tag="B"):
    """Nobody waits for an exchange any more."""

    exchange: int


class Suspect(Message, frozen=True, tag="Q"):
    """Something may still come on this port that nobody waits for; or (`late`) came after its reader had given up."""

    port: str
    late: bool = False


class StopPort(Message, frozen=True, tag="!"):
    """Put stop bytes on a port before everything else."""

    number: int
    port: str
    data: bytes | None
    holder: str
    ends_moving: bool


class LockAsk(Message, frozen=True, tag="V"):
    """Lock a port for a seat, unlock it, or ask how it is locked (`what`, a LockAction); see `PortLocks`."""

    number: int
    port: str
    seat: SeatFacts
    holder: str
    what: str
    key: str | None = None
    timeout_s: float | None = None


class LockWithdrawn(Message, frozen=True, tag="W"):
    """Nobody waits for a lock any more."""

    number: int


ToUser: TypeAlias = Granted | Ended | Written | Heard | LockTold
"""What is said to whoever uses ports, wherever he is; a worker hears Stopped besides, a program outside Ports."""

OfUser: TypeAlias = (
    TicketAsk | TicketEnd | Exchanged | SeatEnd | Reading | Abandoned | Suspect | StopPort | LockAsk | LockWithdrawn
)
