from __future__ import annotations

from collections import deque

LIMIT = 5
WINDOW_S = 60.0


class Restarts:
    """When a watchdog that died is started again: at once, but not more than 5 times in any 60 s.

    Beyond that it waits until the window has room. It is never given up: a lab without one is worse than a slow one.
    """

    def __init__(self, limit: int = LIMIT, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._at_s: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self.count = 0

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next start; 0 for none."""
        if len(self._at_s) < self._limit:
            return 0.0
        return max(0.0, self._at_s[0] + self._window_s - now_s)

    def begun(self, now_s: float) -> None:
        """Count a restart."""
        self._at_s.append(now_s)
        self.count += 1
