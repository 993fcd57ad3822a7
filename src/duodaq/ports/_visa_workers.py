from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from duodaq.errors import DuodaqError, PortLostError, PortOpenError
from duodaq.model import VisaDefinition
from duodaq.ports._visa_process import PortWorker, SpawnWorker

_BOARD = re.compile(r"(GPIB\d*)::", re.IGNORECASE)


def worker_key(visa: VisaDefinition) -> str:
    """What shares a port worker: all on one GPIB board, for one library; anything else has one of its own."""
    board = _BOARD.match(visa.resource)
    if board is None:
        return f"{visa.library} {visa.resource}"
    name = board[1].upper()
    return f"{visa.library} {name if name != 'GPIB' else 'GPIB0'}"


class PortWorkers:
    """The port workers of a broker, each made when its first resource is opened, and ended with its last.

    Args:
        spawn: Makes the processes; without it, no resource behind a VISA library can be opened.
    """

    def __init__(self, spawn: SpawnWorker | None = None) -> None:
        self._spawn = spawn
        self._workers: dict[str, PortWorker] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def join(
        self, visa: VisaDefinition, lost: Callable[[PortLostError], None], timeout_s: float
    ) -> tuple[PortWorker, int]:
        """The worker for that resource, and the resource's number in it.

        Raises:
            PortOpenError: There is none, and none can be made.
        """
        key = worker_key(visa)
        async with self._making.setdefault(key, asyncio.Lock()):
            worker = self._workers.get(key)
            if worker is None or worker.over:
                if worker is not None:
                    await worker.aclose()
                worker = self._workers[key] = await self._make(visa, key, timeout_s)
            return worker, worker.add(lost)

    async def leave(self, worker: PortWorker, resource: int) -> bool:
        """That resource is closed; a worker without any is ended. Whether this one has ended."""
        if worker.forget(resource):
            await worker.aclose()
            for key in [key for key, known in self._workers.items() if known is worker]:
                del self._workers[key]
        return worker.over

    async def _make(self, visa: VisaDefinition, key: str, timeout_s: float) -> PortWorker:
        if self._spawn is None:
            raise PortOpenError(
                "there is nothing here that makes worker processes for a VISA library", port=visa.resource
            )
        try:
            return PortWorker(await self._spawn(f"visa.{key.strip()}", timeout_s))
        except DuodaqError as error:
            raise PortOpenError(f"no port worker: {error}", port=visa.resource) from error
