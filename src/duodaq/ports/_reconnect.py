from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from duodaq import clock
from duodaq.errors import PortError, PortOpenError
from duodaq.telemetry import get_logger

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner

_log = get_logger("ports")
_FIRST_S = 0.05
_LONGEST_S = 5.0
_OPEN_S = 5.0


def backoff_s(attempt: int) -> float:
    """How long to wait before attempt number `attempt` (from 0): 50 ms, doubled each time, at most 5 s."""
    return min(_LONGEST_S, _FIRST_S * 2 ** min(attempt, 10))


class Reconnector:
    """Opens a lost port again, with back-off, until it answers as the same device did before."""

    def __init__(self, owner: PortOwner) -> None:
        self._owner = owner
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"reconnect {self._owner.name}")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        attempt = 0
        while not await self._attempt(attempt):
            attempt += 1
        self._owner.books.reconnects += 1
        _log.info("port is back", port=self._owner.name, attempts=attempt + 1)
        self._owner.opened()

    async def _attempt(self, attempt: int) -> bool:
        await clock.pause(backoff_s(attempt))
        owner = self._owner
        try:
            await owner.transport.open(owner, _OPEN_S)
            await self._check_identity()
        except PortError as error:
            owner.books.last_error = f"cannot reconnect: {error}"
            await owner.transport.aclose(0.1)
            return False
        except BaseException:
            await owner.transport.aclose(0.1)
            raise
        return owner.transport.is_open

    async def _check_identity(self) -> None:
        """Ask who is there, if it is known who should be.

        Raises:
            PortOpenError: Another device answers, or none does yet.
        """
        owner = self._owner
        query = owner.codec.identity() if owner.codec is not None else None
        if owner.codec is None or query is None or owner.identity_reply is None:
            return
        with owner.listening() as listener:
            reply = await listener.ask(*query, within_s=owner.codec.longest_reply_s)
        if reply is None:
            raise PortOpenError("it does not answer yet", port=owner.name)
        if reply != owner.identity_reply:
            raise PortOpenError(f"another device answers: {reply!r}, not {owner.identity_reply!r}", port=owner.name)
