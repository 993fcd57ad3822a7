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


def backoff_s(attempt: int, first_s: float = _FIRST_S) -> float:
    """How long to wait before attempt number `attempt` (from 0): 50 ms, doubled each time, at most 5 s."""
    return min(_LONGEST_S, first_s * 2 ** min(attempt, 10))


class Reconnector:
    """Opens a lost port again, with back-off, until it answers as the same device did before.

    What was under way when the line was lost may have left half a command in the device, and it stays there: no
    terminator came. So the first that is written is a question of the broker's own, which spoils it (see `Mender`), and
    the first that counts is the same question once more. Where the codec knows none, as on a line whose devices have
    addresses, half a command is given up by the device itself, within the codec's longest reply.
    """

    def __init__(self, owner: PortOwner) -> None:
        self._owner = owner
        self._first_s = float(owner.definition.options.get("reconnect_first_s", _FIRST_S))
        self._lost_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._lost_s = self._owner.loop.time()
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
        await clock.pause(backoff_s(attempt, self._first_s))
        owner = self._owner
        try:
            await owner.transport.open(owner, _OPEN_S)
            await self._check_who_is_there()
        except PortError as error:
            owner.books.last_error = f"cannot reconnect: {error}"
            await owner.transport.aclose(0.1)
            return False
        except BaseException:
            await owner.transport.aclose(0.1)
            raise
        return owner.transport.is_open

    async def _check_who_is_there(self) -> None:
        """Make the line begin anew, and ask who is there; see above.

        Raises:
            PortOpenError: Another device answers, or none does yet, though one did before.
        """
        owner, codec = self._owner, self._owner.codec
        if codec is None:
            return
        query, known = codec.identity() or codec.probe(), owner.identity_reply
        with owner.listening() as listener:
            if query is None:
                await clock.pause(max(0.0, self._lost_s + codec.longest_reply_s - owner.loop.time()))
                return
            reply = await listener.greet(*query, within_s=codec.longest_reply_s)
        if known is None:
            return
        if reply is None:
            raise PortOpenError("it does not answer yet", port=owner.name)
        if reply != known:
            raise PortOpenError(owner.books.stranger(reply, known), port=owner.name)
        owner.books.acquainted()
