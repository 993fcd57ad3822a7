"""Ends that go on to their end, whatever becomes of whoever asked for them: a client that leaves, a task cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any


class Endings:
    """The ends of a lab's recordings and logs that are under way, by name. On the lab's loop."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def carry_out(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `work` comes to, or what the end of that name does that is under way already."""
        task = self._under_way.get(name)
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(work(), name=f"end of {name}")
            self._under_way[name] = task
            task.add_done_callback(partial(self._ended, name))
        return await asyncio.shield(task)

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]

    async def rest(self, limit_s: float | None = None) -> None:
        """Wait for those that are under way; they are given up after `limit_s`, or when this is cancelled."""
        tasks = [*self._under_way.values()]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=limit_s)
        finally:
            for task in tasks:
                task.cancel()
