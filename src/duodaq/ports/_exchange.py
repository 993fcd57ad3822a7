from __future__ import annotations

import asyncio
from collections.abc import Callable

from duodaq.ports._framing import Framing
from duodaq.ports._queue import Ticket

Done = Callable[[bytes, BaseException | None], None]


class Exchange:
    """One write with the whole reply that belongs to it, on its way through a port.

    `done` is called exactly once, with the reply (empty if none belongs to it) or with the error; `on_written` when the
    whole request has been handed to the line, with the UTC nanoseconds of that. `moving`: its sender says that it may
    move or emit, where no codec knows better; `epoch` is then the stop epoch in which that sender began. One that
    `stops` is a stop's. `from_codec` says that the framing is what the port's codec makes of the request. `timer` is
    for whoever sets it aside.
    """

    __slots__ = (
        "destructive",
        "done",
        "epoch",
        "framing",
        "from_codec",
        "moving",
        "number",
        "on_written",
        "request",
        "sent",
        "started_s",
        "stops",
        "ticket",
        "timeout_s",
        "timer",
        "trace_id",
    )

    def __init__(
        self,
        ticket: Ticket,
        request: bytes,
        framing: Framing | None,
        timeout_s: float,
        done: Done,
        trace_id: str | None = None,
    ) -> None:
        self.ticket = ticket
        self.request = request
        self.framing = framing
        self.timeout_s = timeout_s
        self.done = done
        self.trace_id = trace_id
        self.epoch: int | None = None
        self.moving = False
        self.stops = False
        self.from_codec = False
        self.number = 0
        self.destructive = False
        self.sent = 0
        self.started_s = 0.0
        self.on_written: Callable[[int], None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def half_written(self) -> bool:
        """Whether some of the request has left, and some has not."""
        return 0 < self.sent < len(self.request)

    def stop_clock(self) -> None:
        """End the time-out of one that is set aside."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def once_more(self) -> Exchange:
        """The same exchange again, for which nobody waits any more."""
        again = Exchange(self.ticket, self.request, self.framing, self.timeout_s, _unheard, self.trace_id)
        again.stops = self.stops
        return again


def _unheard(reply: bytes, error: BaseException | None) -> None:
    """Nobody waits for it."""
