from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from duodaq.clock import monotonic_s


class Rate:
    """How often each of many may do something: so many a second, and so many at once after a rest.

    At most `most` are remembered; who came least lately is forgotten first.
    """

    def __init__(self, per_s: float, at_once: float, most: int = 256, now_s: Callable[[], float] = monotonic_s) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._most = most
        self._now_s = now_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> bool:
        """Whether `who` may do it once more now; if so, it counts."""
        now = self._now_s()
        left, at = self._left.pop(who, (self._at_once, now))
        left = min(self._at_once, left + (now - at) * self._per_s)
        may = left >= 1
        self._left[who] = (left - 1 if may else left, now)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return may
