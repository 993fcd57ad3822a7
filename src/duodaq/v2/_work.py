"""A command on its way to an instrument, and the queue it waits in.

Rules for whoever edits this:

* A work ends exactly once, by whoever comes first: its result, its deadline, a stop, or its caller going away. What
  comes after the first verdict is late, and only logged.
* Until it is taken in hand its fate is "not done", from then on "unknown" until the driver has spoken.
* It is known to the queue from the moment its caller made it, before there is room for it: a stop ends those too.
* Room is given in the order of asking. A place is given back when the work leaves the queue, for whatever reason.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

from duodaq.clock import Deadlines
from duodaq.errors import DeliveryError, DuodaqError, MailboxFullError, ReplyTimeoutError
from duodaq.model import IN_HAND, Command, Fate, ReadChannel, SnapFrame, command_name
from duodaq.telemetry import get_logger
from duodaq.v2._figures import Figures

CAPACITY = 32
_LOG = get_logger("v2.work")


class Work:
    """One command with its deadline and its one-shot reply."""

    __slots__ = (
        "_deadlines",
        "_figures",
        "busy_with",
        "command",
        "context",
        "deadline_at",
        "deadline_s",
        "has_place",
        "in_hand",
        "instrument",
        "moving",
        "name",
        "on_end",
        "reply",
    )

    def __init__(
        self,
        instrument: str,
        command: Command,
        deadlines: Deadlines,
        figures: Figures,
        *,
        moving: bool,
        deadline_s: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.instrument = instrument
        self.command = command
        self.name = command_name(command)
        self.moving = moving
        self.deadline_s = deadline_s
        self.context = contextvars.copy_context()
        self.reply: asyncio.Future[Any] = loop.create_future()
        self.in_hand = False
        self.has_place = False
        self.on_end: Callable[[Work], None] | None = None
        self.busy_with: Callable[[], str] | None = None
        self.deadline_at = None if deadline_s is None else loop.time() + deadline_s
        self._deadlines = deadlines
        self._figures = figures
        if self.deadline_at is not None:
            deadlines.add(self, self.deadline_at)
        self.reply.add_done_callback(self._ended)

    @property
    def channel(self) -> str:
        """To which channel its reading belongs, if it is one."""
        if isinstance(self.command, ReadChannel):
            return self.command.channel
        if isinstance(self.command, SnapFrame):
            return str(self.command.options.get("channel", "frame"))
        return self.name

    @property
    def ended(self) -> bool:
        """Whether the verdict has been given, or the caller has gone away."""
        return self.reply.done()

    @property
    def fate(self) -> Fate:
        """What has become of it, once it has ended."""
        if self.reply.cancelled():
            return Fate.UNKNOWN if self.in_hand else Fate.NOT_DONE
        error = self.reply.exception()
        if error is None:
            return Fate.DONE
        if isinstance(error, DeliveryError):
            return Fate(error.fate)
        return Fate.FAILED if self.in_hand else Fate.NOT_DONE

    def take(self) -> bool:
        """Take it in hand; False if it has ended already."""
        if not self.ended:
            self.in_hand = True
            if (tell := self.context.get(IN_HAND)) is not None:
                tell()
        return self.in_hand

    def succeed(self, result: Any) -> bool:
        """Give `result` to the caller; False if a verdict stands already."""
        if self.ended:
            self._note_late("done")
            return False
        self.reply.set_result(result)
        return True

    def fail(self, error: DuodaqError) -> bool:
        """Give `error` to the caller; False if a verdict stands already."""
        if self.ended:
            self._note_late(str(error))
            return False
        self.reply.set_exception(error.about(instrument=self.instrument, command=self.name))
        return True

    def expire(self) -> None:
        """The deadline has passed."""
        if self.ended:
            return
        within = f"within {self.deadline_s:g} s" if self.deadline_s is not None else "in time"
        if self.in_hand:
            self.fail(ReplyTimeoutError(f"the driver did not return {within}", fate=Fate.UNKNOWN))
        elif self.has_place:
            busy = (self.busy_with() if self.busy_with is not None else "") or "the instrument is busy"
            self.fail(ReplyTimeoutError(f"not begun {within}: {busy}", fate=Fate.NOT_DONE))
        else:
            self.fail(MailboxFullError(f"no room in its queue of {CAPACITY} {within}", fate=Fate.NOT_DONE))

    def _note_late(self, outcome: str) -> None:
        if self.in_hand:
            _LOG.info("an outcome came after the verdict", instrument=self.instrument, command=self.name, late=outcome)

    def _ended(self, reply: asyncio.Future[Any]) -> None:
        self._deadlines.discard(self)
        if not reply.cancelled():
            reply.exception()  # its caller may be gone; that is no "exception was never retrieved"
        self._figures.note_fate(self.fate)
        if self.on_end is not None:
            self.on_end(self)


class WorkQueue:
    """The bounded FIFO queue of one instrument. Used from its loop only."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.high_water = 0
        self._room = capacity
        self._items: deque[Work] = deque()
        self._asking: deque[tuple[Work, asyncio.Future[None]]] = deque()
        self._known: dict[Work, None] = {}
        self._reader: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s: float | None = None

    def __len__(self) -> int:
        return len(self._items)

    def register(self, work: Work) -> None:
        """Know `work` from now on, so that a stop ends it wherever it waits."""
        self._known[work] = None
        work.on_end = self._forget

    async def reserve(self, work: Work) -> None:
        """Wait for a place for `work`, in the order of asking; returns also when the work has ended meanwhile."""
        if self._room and not self._asking:
            self._give(work)
            return
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append((work, ready))
        await ready

    def reserve_nowait(self, work: Work) -> bool:
        """Take a place if there is one and nobody asked before."""
        if not self._room or self._asking:
            return False
        self._give(work)
        return True

    def put(self, work: Work) -> None:
        """Add `work`, which has a place; nothing happens if it has ended meanwhile."""
        if work.ended:
            return
        self._items.append(work)
        self.high_water = max(self.high_water, len(self._items))
        self.wake()

    async def get(self, until_s: float | None = None) -> Work | None:
        """The next work, in hand; None when the loop's clock reaches `until_s`, or after `wake`."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._reader = reader = loop.create_future()
            if until_s != self._rings_s:  # the next poll is seldom another than before: its timer stands
                self.rest()
                if until_s is not None:
                    self._timer, self._rings_s = loop.call_at(until_s, self._ring), until_s
            try:
                await reader
            finally:
                self._reader = None
        while self._items:
            work = self._items.popleft()
            self._known.pop(work, None)
            work.on_end = None
            self._give_back(work)
            if work.take():
                return work
        return None

    def rest(self) -> None:
        """Wake nobody any more at a moment that `get` was given."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._rings_s = None

    def _ring(self) -> None:
        self._timer = self._rings_s = None
        self.wake()

    def wake(self) -> None:
        """Let a waiting `get` return."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def end(self, error: Callable[[], DuodaqError], *, moving_only: bool = False) -> int:
        """End everything that waits, here or on its way here, with an error of its own each; how many ended."""
        chosen = [work for work in self._known if work.moving or not moving_only]
        return sum(work.fail(error()) for work in chosen)

    def _forget(self, work: Work) -> None:
        """`work` ended before it was taken in hand."""
        self._known.pop(work, None)
        if work in self._items:
            self._items.remove(work)
        for entry in self._asking:
            if entry[0] is work:
                self._asking.remove(entry)
                if not entry[1].done():
                    entry[1].set_result(None)
                break
        self._give_back(work)

    def _give(self, work: Work) -> None:
        self._room -= 1
        work.has_place = True

    def _give_back(self, work: Work) -> None:
        if not work.has_place:
            return
        work.has_place = False
        self._room += 1
        while self._asking and self._room:
            following, ready = self._asking.popleft()
            if not ready.done():
                self._give(following)
                ready.set_result(None)
