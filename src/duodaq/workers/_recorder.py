"""The lab's recorder as V2's commands drive it, from whichever worker V2 lives in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from duodaq.errors import DataError, LifecycleError
from duodaq.v2 import RecorderPromise
from duodaq.workers._messages import Message, NeighbourAnswer, RecorderAsk, error_parts, parcel, unpack

T = TypeVar("T")
START, STOP = "start", "stop"


class RecorderDesk:
    """Where wishes to record arrive; the application plugs its recorder in. `start` and `stop` from any loop.

    Attributes:
        recorder: What is driven, on the loop that opened the desk; None: nothing is plugged in.
    """

    def __init__(self) -> None:
        self.recorder: RecorderPromise | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Begin to take wishes, on the running loop."""
        self._loop = asyncio.get_running_loop()

    async def start(self, **options: Any) -> Any:
        """Have the recorder start.

        Raises:
            LifecycleError: No recorder is plugged in, or it records already. Nothing was begun.
            StorageError: What the recorder says. Nothing is recorded.

        Cancellation: the recorder goes on with what it was told; nobody learns how it ended.
        """
        return await self._there(lambda: self.carry_out(START, options))

    async def stop(self) -> Any:
        """Have the recorder stop; what it came to, once its files are complete.

        Raises:
            LifecycleError: No recorder is plugged in, or nothing is recorded.
        """
        return await self._there(lambda: self.carry_out(STOP, {}))

    async def carry_out(self, op: str, options: dict[str, Any]) -> Any:
        """Start or stop it; on the desk's own loop."""
        if self.recorder is None:
            raise LifecycleError("no recorder is plugged into this lab", left="nothing is recorded")
        work: Coroutine[Any, Any, Any]
        if op == START:
            work = self.recorder.start(**options)
        elif op == STOP:
            work = self.recorder.stop()
        else:
            raise DataError(f"a recorder does not {op}")
        task = asyncio.create_task(work, name=f"recorder.{op}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)  # half a start would leave files behind that nobody ends

    async def serve(self, asked: RecorderAsk, send: Callable[[Message], None]) -> None:
        """Carry out a worker's wish, and send what became of it."""
        try:
            options: Any = unpack(asked.options)
            if not isinstance(options, dict):
                raise DataError(f"{type(options).__name__} is no table of options")
            result = await self.carry_out(asked.op, cast("dict[str, Any]", options))
            answer = NeighbourAnswer(asked.number, parcel(result))
        except Exception as error:  # noqa: BLE001 - it is the worker who has to know
            answer = NeighbourAnswer(asked.number, None, *error_parts(error))
        send(answer)

    async def _there(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is None or self._loop.is_closed():
            raise LifecycleError("the lab is not running", left="nothing is recorded")
        if self._loop is asyncio.get_running_loop():
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))


class RecorderLine:
    """The recorder as a worker process sees it.

    Args:
        ask: Puts a question to the manager.
    """

    def __init__(self, ask: Callable[[str, dict[str, Any]], Any]) -> None:
        self._ask = ask

    async def start(self, **options: Any) -> Any:
        """See RecorderDesk.start."""
        return await asyncio.wrap_future(self._ask(START, options))

    async def stop(self) -> Any:
        """See RecorderDesk.stop."""
        return await asyncio.wrap_future(self._ask(STOP, {}))
