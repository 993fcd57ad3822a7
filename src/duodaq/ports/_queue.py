from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable
from enum import IntEnum

from duodaq.errors import PortBusyError


class Lane(IntEnum):
    """Who goes first at a port. SAFETY passes a latched stop; STOP goes before everything else that waits."""

    SAFETY = 0
    STOP = 1
    NORMAL = 2


class Ticket:
    """A place in the queue for one port: it waits, then it is the lease, then it is over.

    `settle` is called once: with None when the port is granted, with an error when it will not be. `alive` says
    whether the owner can still give it back; a ticket whose owner is dead is taken from it. A ticket with `once` is
    given back by the port after its first exchange, one with `hold_max_s` after the exchange in which that passed.
    `epoch` is the port's stop epoch when it asked. `sink` takes what arrives between exchanges (ports without codec);
    `idle_s` of silence end such a lease. With `first_s` it is a driver call's, which ends by itself: then silence ends
    it only for others who wait, and before a command has any answer at all only when that time has passed as well.
    `answered` says, where that has to be fetched, whether the last question had its answer, and an END behind it.
    """

    __slots__ = (
        "alive",
        "answered",
        "asked_s",
        "epoch",
        "first_s",
        "granted_s",
        "heard",
        "hold_max_s",
        "holder",
        "idle_s",
        "idle_timer",
        "lane",
        "once",
        "reading",
        "settle",
        "sink",
        "timer",
        "void",
        "wrote_s",
    )

    def __init__(
        self,
        holder: str,
        lane: Lane,
        settle: Callable[[Exception | None], None],
        alive: Callable[[], bool] | None = None,
    ) -> None:
        self.holder = holder
        self.lane = lane
        self.settle = settle
        self.alive = alive
        self.epoch = 0
        self.asked_s = 0.0
        self.granted_s: float | None = None
        self.hold_max_s: float | None = None
        self.once = False
        self.timer: TimerHandle | None = None
        self.sink: Callable[[bytes], None] | None = None
        self.idle_s: float | None = None
        self.first_s: float | None = None
        self.wrote_s = 0.0
        self.heard = False
        self.idle_timer: TimerHandle | None = None
        self.reading = False
        self.answered: bool | None = None
        self.void: Exception | None = None


class LeaseQueue:
    """Who holds a port and who waits for it: first come, first served within a lane, urgent lanes first.

    Pure: it neither waits nor knows a clock. At most one ticket is held; a ticket that was given back, withdrawn or
    never asked is in neither place. Whoever gives back and asks again goes to the end. `waits` is how many wait.
    """

    def __init__(self, limit: int = 256) -> None:
        self.limit = limit
        self.held: Ticket | None = None
        self.waits = 0
        self._lanes: tuple[dict[Ticket, None], ...] = tuple({} for _ in Lane)

    def __len__(self) -> int:
        return self.waits

    def waiting(self) -> list[Ticket]:
        """Those who wait, in the order in which they will be served."""
        return [ticket for lane in self._lanes for ticket in lane]

    def is_waiting(self, ticket: Ticket) -> bool:
        """Whether `ticket` is one of them."""
        return ticket in self._lanes[ticket.lane]

    def holders_waiting(self) -> tuple[str, ...]:
        """Their names, in that order. From any thread."""
        return tuple(ticket.holder for lane in self._lanes for ticket in lane.copy())

    def ask(self, ticket: Ticket) -> None:
        """Put `ticket` at the end of its lane.

        Raises:
            PortBusyError: `limit` tickets wait already (urgent lanes are never refused). Nothing was queued.
        """
        if ticket.lane is Lane.NORMAL and len(self._lanes[Lane.NORMAL]) >= self.limit:
            raise PortBusyError(
                f"{self.limit} wait for this port already", holder=self.held.holder if self.held else None
            )
        lane = self._lanes[ticket.lane]
        before = len(lane)
        lane[ticket] = None
        self.waits += len(lane) - before

    def grant(self) -> Ticket | None:
        """Make the first who waits the holder, if the port is free; that ticket, or None."""
        if self.held is not None:
            return None
        for lane in self._lanes:
            if lane:
                ticket = next(iter(lane))
                del lane[ticket]
                self.waits -= 1
                self.held = ticket
                return ticket
        return None

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a waiting ticket out; whether it was waiting."""
        if not self.is_waiting(ticket):
            return False
        del self._lanes[ticket.lane][ticket]
        self.waits -= 1
        return True

    def give_back(self, ticket: Ticket) -> bool:
        """End the lease of `ticket`; whether it was the holder."""
        if self.held is not ticket:
            return False
        self.held = None
        return True

    def clear(self) -> list[Ticket]:
        """Take everybody out, holder first; those who were in."""
        everybody = ([self.held] if self.held else []) + self.waiting()
        self.held = None
        for lane in self._lanes:
            lane.clear()
        self.waits = 0
        return everybody
