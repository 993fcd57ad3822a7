"""Who has locked an instrument, and who waits for it: pure but for the timers of those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

Told = Callable[[bool], None]


@dataclass(eq=False)
class _Waiting:
    client: int
    try_now: Callable[[], bool]
    told: Told
    timer: asyncio.TimerHandle | None = field(default=None)


class DeviceLock:
    """The lock of one instrument: exclusive, or shared by all who give the same key; and both at once by one of those.

    `on_change` is called when somebody may do what he could not do before.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.exclusive: int | None = None
        self.sharers: set[int] = set()
        self._key = ""
        self._waiting: list[_Waiting] = []
        self._on_change = on_change

    @property
    def holders(self) -> int:
        """How many clients hold a lock of either kind."""
        return len(self.sharers | ({self.exclusive} if self.exclusive is not None else set[int]()))

    def admits(self, client: int) -> bool:
        """Whether `client` may use the instrument now."""
        if self.exclusive is not None:
            return self.exclusive == client
        return not self.sharers or client in self.sharers

    def holds(self, client: int, key: str) -> bool:
        """Whether `client` has that kind of lock already: exclusive for an empty key, else shared."""
        return client in self.sharers if key else self.exclusive == client

    def request(self, client: int, key: str, timeout_s: float, told: Told) -> None:
        """Lock for `client`, exclusively if `key` is empty; `told` is called with whether that came within the time."""
        self._await(client, lambda: self._take(client, key), timeout_s, told)

    def await_access(self, client: int, timeout_s: float, told: Told) -> None:
        """Wait until `client` may use the instrument."""
        self._await(client, lambda: self.admits(client), timeout_s, told)

    def release(self, client: int) -> str | None:
        """Take back the last lock of `client`: ``"exclusive"``, ``"shared"``, or None if it has none."""
        if self.exclusive == client:
            self.exclusive, kind = None, "exclusive"
        elif client in self.sharers:
            self.sharers.discard(client)
            kind = "shared"
        else:
            return None
        self._settle()
        return kind

    def forget(self, client: int) -> None:
        """`client` is gone, with its locks and its wishes."""
        for waiting in [one for one in self._waiting if one.client == client]:
            self._drop(waiting)
        while self.release(client):
            pass

    def _take(self, client: int, key: str) -> bool:
        others = self.sharers - {client}
        if self.exclusive not in (None, client):
            return False
        if not key:
            if others and client not in self.sharers:
                return False
            self.exclusive = client
            return True
        if others and key != self._key:
            return False
        self._key = key
        self.sharers.add(client)
        return True

    def _await(self, client: int, try_now: Callable[[], bool], timeout_s: float, told: Told) -> None:
        if try_now():
            told(True)
            return
        if timeout_s <= 0:
            told(False)
            return
        waiting = _Waiting(client, try_now, told)
        waiting.timer = asyncio.get_running_loop().call_later(timeout_s, self._too_late, waiting)
        self._waiting.append(waiting)

    def _too_late(self, waiting: _Waiting) -> None:
        self._drop(waiting)
        waiting.told(False)

    def _drop(self, waiting: _Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _settle(self) -> None:
        for waiting in list(self._waiting):
            if waiting in self._waiting and waiting.try_now():
                self._drop(waiting)
                waiting.told(True)
        self._on_change()
