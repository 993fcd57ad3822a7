from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from duodaq.errors import PortBusyError
from duodaq.ports._queue import LeaseQueue, Ticket
from duodaq.telemetry import get_logger

_log = get_logger("ports")
_WATCH_S = 0.2
_WAITS = 1024
"""How many of the last waits for a port are remembered."""


class LeaseDesk:
    """The queue of one port with its clocks: who waited too long, who held too long, whose owner is dead.

    Args:
        name: The port.
        loop: The broker's.
        end: Ends a ticket whose owner is dead.
        let_go: Ends a ticket that has held for its `hold_max_s`, once its exchange has ended.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        end: Callable[[Ticket], None],
        let_go: Callable[[Ticket], None],
    ) -> None:
        self.queue = LeaseQueue()
        self.waits_s: deque[float] = deque(maxlen=_WAITS)
        self._name = name
        self._loop = loop
        self._end = end
        self._let_go = let_go
        self._watch: asyncio.TimerHandle | None = None

    def ask(self, ticket: Ticket) -> None:
        """Put `ticket` into the queue.

        Raises:
            PortBusyError: It is full. Nothing was queued.
        """
        ticket.asked_s = self._loop.time()
        self.queue.ask(ticket)

    def expire_after(self, ticket: Ticket, timeout_s: float) -> None:
        """Withdraw `ticket` if it still waits after `timeout_s`."""
        ticket.timer = self._loop.call_later(timeout_s, self._expire, ticket, timeout_s)

    def _expire(self, ticket: Ticket, waited_s: float) -> None:
        ticket.timer = None
        if not self.queue.withdraw(ticket):
            return
        held = self.queue.held
        holder = held.holder if held is not None else "the broker, which resynchronises it"
        held_s = self.held_s()
        since = f" for {held_s:.2f} s" if held is not None else ""
        ticket.settle(
            PortBusyError(
                f"not free within {waited_s:g} s: held by {holder}{since}",
                holder=holder,
                held_s=held_s,
                port=self._name,
                left="nothing was sent",
            )
        )

    def held_s(self) -> float:
        """For how many seconds the present lease has been held; 0 without one."""
        held = self.queue.held
        return self._loop.time() - held.granted_s if held is not None and held.granted_s is not None else 0.0

    def grant(self) -> Ticket | None:
        """Make the first who waits the holder, and start the clocks of its lease; None if there is nobody."""
        ticket = self.queue.grant()
        if ticket is None:
            return None
        self.stop_clocks(ticket)
        ticket.granted_s = now_s = self._loop.time()
        self.waits_s.append(now_s - ticket.asked_s)
        if ticket.hold_max_s is not None:
            ticket.timer = self._loop.call_later(ticket.hold_max_s, self._overheld, ticket)
        if self._watch is None:
            self._watch = self._loop.call_later(_WATCH_S, self._look_after_owners)
        return ticket

    def _overheld(self, ticket: Ticket) -> None:
        ticket.timer = None
        self._let_go(ticket)

    def stop_clocks(self, ticket: Ticket) -> None:
        """Cancel what was timed for `ticket`."""
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        if ticket.idle_timer is not None:
            ticket.idle_timer.cancel()
            ticket.idle_timer = None

    def count_silence(self, ticket: Ticket, *, heard: bool) -> None:
        """Count the silence of a holder without codec from now; after `idle_s` of it the lease ends.

        `heard`: something has come for it; else it has written something.
        """
        ticket.heard = heard
        if not heard:
            ticket.wrote_s = self._loop.time()
        if ticket.idle_timer is not None:
            ticket.idle_timer.cancel()
        if ticket.idle_s is not None:
            ticket.idle_timer = self._loop.call_later(ticket.idle_s, self._fell_silent, ticket)

    def _fell_silent(self, ticket: Ticket) -> None:
        ticket.idle_timer = None
        if ticket.reading or self._may_stay(ticket):
            ticket.idle_timer = self._loop.call_later(ticket.idle_s or 0.0, self._fell_silent, ticket)
        else:
            self._let_go(ticket)

    def _may_stay(self, ticket: Ticket) -> bool:
        """Whether a driver call goes on holding a silent line: nobody else wants it, or its answer may yet begin."""
        if ticket.first_s is None:
            return False
        return not self.queue.waits or (not ticket.heard and self._loop.time() - ticket.wrote_s < ticket.first_s)

    def _look_after_owners(self) -> None:
        self._watch = None
        held = self.queue.held
        for ticket in ([held] if held else []) + self.queue.waiting():
            if ticket.alive is not None and not ticket.alive():
                _log.warning("took the port from a dead owner", port=self._name, holder=ticket.holder)
                self._end(ticket)
        if self.queue.held is not None or len(self.queue):
            self._watch = self._loop.call_later(_WATCH_S, self._look_after_owners)

    def fail(self, tickets: list[Ticket], error: Exception) -> None:
        """End `tickets`, which held or waited, by `error`."""
        for ticket in tickets:
            waiting = ticket.granted_s is None
            self.stop_clocks(ticket)
            ticket.void = error
            if waiting:
                ticket.settle(error)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
