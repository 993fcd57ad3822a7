"""A line without a wire: what a V4 driver in the shadow takes for its port.

It keeps so much of the promise of `ports.LineOwner` as an asynchronous driver uses through a `Port`. Nobody is ever
left waiting: each question ends with an answer, or with a refusal that says why there is none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from duodaq.clock import utc_ns
from duodaq.errors import PortTimeoutError
from duodaq.migration._answers import Answer, Answers
from duodaq.migration._compare import Written
from duodaq.migration._exchanges import Seen
from duodaq.model import PortDefinition
from duodaq.ports import Deed, Exchange, PortCodec, Ticket, deeds_of

_KEPT = 20_000


class ShadowLine:
    """Answers exchanges from what V2 was told, and notes what would have been written.

    Attributes:
        orders: What would have been written, with its time, until the shadow takes it; the last so many.
        asked: How often each question was asked.
        first_asked: When each was asked first, and how often V2 had asked it until then.
        given_ns: When an answer of an exchange of V2's was given to V4; the last so many.
        ends: With which line ends the requests of either side were written; an empty one is none.
        made_of: The exchanges of V2's that answered what a value was made of, by channel and number.
        stand_ins: By question, how often it was answered by something that is no evidence, and by what.
        tainted: The trace ids of actions that rest on such an answer; the last so many.
    """

    def __init__(self, definition: PortDefinition, codec: PortCodec, answers: Answers) -> None:
        self.name = definition.name
        self.definition = definition
        self.codec = codec
        self.loop = asyncio.get_running_loop()
        self.epoch = 0
        self.orders: deque[Written] = deque(maxlen=_KEPT)
        self.asked: dict[str, int] = {}
        self.first_asked: dict[str, tuple[int, int]] = {}
        self.given_ns: dict[int, int] = {}
        self.ends: dict[str, set[bytes]] = {"v2": set(), "v4": set()}
        self.made_of: dict[tuple[str, int], frozenset[int]] = {}
        self._told: WeakKeyDictionary[asyncio.Task[Any], list[int]] = WeakKeyDictionary()
        self.stand_ins: dict[str, dict[str, int]] = {}
        self.tainted: dict[str | None, None] = {}
        self._answers = answers
        self._pending: list[_Pending] = []

    # --- what a Port asks of its owner

    def hand_over(self, action: Callable[..., Any], *args: Any) -> None:
        """Run `action` on this loop, soon."""
        self.loop.call_soon_threadsafe(action, *args)

    def ask(self, ticket: Ticket, timeout_s: float | None, epoch: int | None = None) -> None:
        """Grant the lease at once: nobody else is on this line."""
        ticket.epoch, ticket.granted_s = self.epoch, self.loop.time()
        ticket.settle(None)

    def end(self, ticket: Ticket) -> None:
        """A lease is over."""
        for pending in [p for p in self._pending if p.exchange.ticket is ticket]:
            self.abandon(pending.exchange)

    def submit(self, exchange: Exchange, timeout_s: float | None, epoch: int | None = None) -> None:
        """Make an exchange under a lease of its own."""
        self.begin(exchange)

    def begin(self, exchange: Exchange) -> None:
        """Make an exchange."""
        deeds = deeds_of(self.codec, exchange.request)
        self.ends["v4"].add(line_end_of(exchange.request))
        now_ns = utc_ns()
        for deed in deeds:
            if deed.asks:
                self.first_asked.setdefault(deed.subject, (now_ns, self._answers.asked_of(deed.subject)))
                self.asked[deed.subject] = self.asked.get(deed.subject, 0) + 1
            else:
                self.orders.append(Written(now_ns, deed))
        if exchange.on_written is not None:
            exchange.on_written(now_ns)
        asking = [deed for deed in deeds if deed.asks]
        if exchange.framing is None or not asking:
            self.loop.call_soon(exchange.done, b"", None)
            return
        pending = _Pending(exchange, asking)
        self._pending.append(pending)
        self._serve(pending)

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for it any more."""
        for pending in [p for p in self._pending if p.exchange is exchange]:
            self._pending.remove(pending)
            pending.stop()

    def suspect(self) -> None:
        """Nothing late ever comes here."""

    def note_late(self) -> None:
        """Nothing late ever comes here."""

    # --- what the shadow does

    def heard(self, seen: Seen, *, alone: bool = False) -> None:
        """V2 has had an exchange: whoever waits for its answer may go on; `alone`: V4 was not told to make it."""
        self._answers.heard(seen, alone=alone)
        self.ends["v2"].add(line_end_of(seen.written))
        for pending in tuple(self._pending):
            self._serve(pending)

    def close(self) -> None:
        """Let nobody wait."""
        for pending in tuple(self._pending):
            self._give_up(pending)

    def published(self, channel: str, number: int) -> None:
        """The running task gives away a value: it is made of what that task was told since its last one."""
        task = asyncio.current_task()
        told = self._told.pop(task, []) if task is not None else []
        self.made_of[channel, number] = frozenset(told)
        if len(self.made_of) > _KEPT:
            del self.made_of[next(iter(self.made_of))]

    def _serve(self, pending: _Pending) -> None:
        while pending.asking:
            subject = pending.asking[0].subject
            answer = self._answers.fresh(subject)
            if answer is None:
                patience_s = self._answers.patience_s(subject, utc_ns())
                if patience_s and pending.timer is None:
                    pending.timer = self.loop.call_later(patience_s, self._give_up, pending)
                if patience_s:
                    return
                answer = self._stand_in(pending, subject)
            self._take(pending, answer)
        self._settle(pending)

    def _give_up(self, pending: _Pending) -> None:
        """V2 does not ask that any more: go on with what there is."""
        while pending.asking:
            self._take(pending, self._stand_in(pending, pending.asking[0].subject))
        self._settle(pending)

    def _stand_in(self, pending: _Pending, subject: str) -> Answer:
        answer = self._answers.stand_in(subject)
        sources = self.stand_ins.setdefault(subject, {})
        sources[answer.source] = sources.get(answer.source, 0) + 1
        self.tainted[pending.exchange.trace_id] = None
        if len(self.tainted) > _KEPT:
            del self.tainted[next(iter(self.tainted))]
        return answer

    def _take(self, pending: _Pending, answer: Answer) -> None:
        deed = pending.asking.pop(0)
        if answer.source == "v2":
            self.given_ns[answer.exchange] = utc_ns()
            if len(self.given_ns) > _KEPT:
                del self.given_ns[next(iter(self.given_ns))]
        if answer.source == "v2" and pending.task is not None:
            self._told.setdefault(pending.task, []).append(answer.exchange)
        if answer.source == "none":
            pending.error = PortTimeoutError(f"not comparable: V2 was never told «{deed.subject}»", port=self.name)
        elif answer.error:
            pending.error = PortTimeoutError(f"V2's exchange broke off: {answer.error}", port=self.name)
        pending.reply += answer.data

    def _settle(self, pending: _Pending) -> None:
        if pending in self._pending:
            self._pending.remove(pending)
        pending.stop()
        error = pending.error
        self.loop.call_soon(pending.exchange.done, b"" if error is not None else pending.reply, error)


def line_end_of(request: bytes) -> bytes:
    """The line end that some bytes end with; empty if they do not."""
    return request[len(request.rstrip(b"\r\n")) :][-2:]


class _Pending:
    def __init__(self, exchange: Exchange, asking: list[Deed]) -> None:
        self.exchange = exchange
        self.asking = asking
        self.reply = b""
        self.error: Exception | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.task = asyncio.current_task()

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class NotedNumbers(dict[str, int]):
    """The next sequence number of each channel; whoever takes one is publishing a value, and is noted."""

    def __init__(self, line: ShadowLine) -> None:
        super().__init__()
        self._line = line

    def __setitem__(self, channel: str, number: int, /) -> None:
        super().__setitem__(channel, number)
        self._line.published(channel, number - 1)


class ShadowPorts:
    """The one port of a shadow, as a runtime sees ports. Its stops are noted, and go nowhere.

    Args:
        line: The port.
        latched: Whether a stop is latched in the lab.
    """

    def __init__(self, line: ShadowLine, latched: Callable[[], bool]) -> None:
        self._line = line
        self._latched = latched

    @property
    def latched(self) -> bool:
        """Whether a stop is latched."""
        return self._latched()

    def port(self, name: str) -> Any:
        """The port."""
        from duodaq.ports import Port

        owner: Any = self._line  # as much of a LineOwner as a Port needs
        return Port(owner)

    def definitions(self) -> dict[str, PortDefinition]:
        """The one there is."""
        return {self._line.name: self._line.definition}

    def session(self, port: str, holder: str, *, impatient: bool = False) -> Any:
        """None: only asynchronous drivers have a shadow."""
        raise PortTimeoutError("a shadow has no sessions for blocking drivers", port=port)

    async def stop(
        self, port: str, data: bytes | None = None, holder: str = "stop", *, ends_moving: bool = True
    ) -> int:
        """Note a stop."""
        now_ns = utc_ns()
        for deed in deeds_of(self._line.codec, data or b""):
            self._line.orders.append(Written(now_ns, deed))
        return now_ns
