"""What the other driver was told, by meaning: where a shadow's questions find their answers. Pure but for the clock.

The order in which an answer is looked for: one that V2 got and the shadow did not use yet; the next one that V2 will
get, if it asks that regularly; the last that V2 got; what V2 has set there; what a device in order would say. Only the
first two are evidence of anything, and only they are compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from duodaq.migration._assumed import is_measured
from duodaq.migration._exchanges import Seen

Source = Literal["v2", "again", "set", "assumed", "none"]
_REGULAR_S = 10.0
_PATIENCE_LEAST_S, _PATIENCE_MOST_S = 0.2, 3.0


class Answer(NamedTuple):
    """An answer and where it comes from: ``v2`` is V2's own, ``again`` the last one once more."""

    data: bytes
    source: Source
    exchange: int = 0
    error: str = ""


@dataclass(slots=True)
class _Known:
    unused: deque[tuple[Seen, int]] = field(default_factory=lambda: deque[tuple[Seen, int]](maxlen=4096))
    last: tuple[Seen, int] | None = None
    asked_ns: deque[int] = field(default_factory=lambda: deque[int](maxlen=8))
    asked: int = 0
    alone: int = 0


class Answers:
    """Keeps V2's answers.

    Args:
        assume: What a device in order says to a question; None if nobody can tell.
        first_wait_s: For how long a question that nobody can answer yet waits for V2 to ask it, once.
        in_order: Every answer is used, in order, as a recording is gone through; else the newest.
    """

    def __init__(
        self, assume: Callable[[str], bytes | None], *, first_wait_s: float = 0.5, in_order: bool = False
    ) -> None:
        self._assume = assume
        self._in_order = in_order
        self._first_wait_ns = int(first_wait_s * 1e9)
        self._at_first: dict[str, int] = {}
        self._known: dict[str, _Known] = {}
        self._set: dict[str, str] = {}

    def heard(self, seen: Seen, *, old: bool = False, alone: bool = False) -> None:
        """Take an exchange of V2's; an `old` one is known, and never evidence; `alone` if V4 was not told to ask."""
        place = 0
        for deed in seen.deeds:
            if not deed.asks:
                self._set[deed.subject] = deed.value
                continue
            known = self._known.setdefault(deed.subject, _Known())
            if not seen.error:
                known.last = (seen, place)
            if not old:
                known.asked += 1
                known.alone += alone
                known.asked_ns.append(seen.began_ns)
                known.unused.append((seen, place))
            place += 1

    def fresh(self, subject: str) -> Answer | None:
        """An answer of V2's that was not used yet."""
        known = self._known.get(subject)
        if known is None or not known.unused:
            return None
        if self._in_order:
            seen, place = known.unused.popleft()
        else:
            seen, place = known.unused.pop()
            known.unused.clear()
        if seen.error:
            return Answer(b"", "v2", seen.number, seen.error)
        return Answer(seen.answers[place], "v2", seen.number)

    def patience_s(self, subject: str, now_ns: int) -> float:
        """For how long V2's next answer is worth waiting; 0 where V2 does not ask that regularly."""
        known = self._known.get(subject)
        if self._in_order:
            return 0.0
        unknown = known is None and subject not in self._set
        if unknown and (is_measured(subject) or self._assume(subject) is None):
            left_ns = self._at_first.setdefault(subject, now_ns) + self._first_wait_ns - now_ns
            return max(0, left_ns) / 1e9
        if known is None or len(known.asked_ns) < 2:
            return 0.0
        times = known.asked_ns
        if now_ns - times[-1] > _REGULAR_S * 1e9:
            return 0.0
        period_s = (times[-1] - times[0]) / 1e9 / (len(times) - 1)
        return min(_PATIENCE_MOST_S, max(_PATIENCE_LEAST_S, 3 * period_s))

    def stand_in(self, subject: str) -> Answer:
        """The best answer where V2 has none: never evidence."""
        known = self._known.get(subject)
        if known is not None and known.last is not None:
            seen, place = known.last
            return Answer(seen.answers[place], "again", seen.number)
        assumed = self._assume(subject)
        if (value := self._set.get(subject)) and assumed is not None:
            return Answer(value.encode("latin-1", "replace") + _end_of(assumed), "set")
        return Answer(b"", "none") if assumed is None else Answer(assumed, "assumed")

    def asked(self) -> dict[str, int]:
        """How often V2 asked each thing since the shadow began."""
        return {subject: known.asked for subject, known in self._known.items() if known.asked}

    def asked_of(self, subject: str) -> int:
        """How often V2 asked one thing since then that V4 should have asked, too."""
        known = self._known.get(subject)
        return 0 if known is None else known.asked - known.alone

    def waiting(self) -> int:
        """How many answers were not used yet."""
        return sum(len(known.unused) for known in self._known.values())


def _end_of(answer: bytes) -> bytes:
    return answer[len(answer.rstrip(b"\r\n")) :]
