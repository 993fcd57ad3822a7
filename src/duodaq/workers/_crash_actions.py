from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from duodaq.errors import DuodaqError
from duodaq.model import Cause, Execute, InstrumentDefinition
from duodaq.telemetry import get_logger
from duodaq.workers._after_death import WorkerDiedError
from duodaq.workers._process import COMMAND, ProcessWorker

LIMIT_S = 1.0
_log = get_logger("workers")

OnCrash = Callable[[Sequence[InstrumentDefinition], str], Awaitable[None]]


class CrashActions:
    """What makes the instruments of a worker safe when its process has died.

    Args:
        worker: Its name.
        write: Writes those actions that are bytes, for a cause.
    """

    def __init__(self, worker: str, write: OnCrash) -> None:
        self._worker = worker
        self._write = write

    async def write(self, definitions: Sequence[InstrumentDefinition], cause: str) -> None:
        """Carry out those that are bytes, at once.

        They wait for no question. The broker lets nobody write to a line that was lost before it has found the same
        device behind it; so on a line that was never lost there is no other, unless somebody changed its cable.
        """
        try:
            await asyncio.wait_for(self._write(definitions, cause), LIMIT_S)
        except TimeoutError:
            _log.error("safe state not reached in time", worker=self._worker)

    async def call(self, worker: ProcessWorker, definitions: Sequence[InstrumentDefinition], cause: str) -> None:
        """Carry out those that only a driver can: now there is one again, in `worker`."""
        for definition in definitions:
            action = definition.safe.get(Cause.CRASH)
            if action is None or action.kind != "call":
                continue
            call = Execute(action.call or "", action.args)
            try:
                await worker.request(COMMAND, (definition.id, call, LIMIT_S), 2 * LIMIT_S)
            except (DuodaqError, WorkerDiedError) as error:
                _log.error("safe state failed", instrument=definition.id, cause=cause, error=str(error))
