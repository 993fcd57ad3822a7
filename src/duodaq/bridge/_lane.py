"""One direction of the bridge: take, translate, publish, and keep the books of it.

Rules: nothing is held across an await except what the destination has no room for, and that is in the books as in
flight; whatever cannot be translated is dropped alone, with a reason, and never stops the lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from duodaq import clock
from duodaq.dataplane import Books, Hub, Subscription
from duodaq.errors import DuodaqError, MailboxFullError, StoppedError
from duodaq.telemetry import get_logger

S = TypeVar("S")
D = TypeVar("D")

UNTRANSLATABLE = "untranslatable"
NO_ROOM = "no room"
REFUSED = "refused"
CLOSED = "destination closed"
STOPPED = "bridge stopped"
_TRANSLATION_ERRORS = (DuodaqError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Translated(Generic[D]):
    """One item for the destination, its stream there, and what it counts for."""

    item: D
    stream: str
    weight: int


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be translated, and why."""

    stream: str
    weight: int
    error: Exception


class Lane(Generic[S, D]):
    """Carries what one hub's subscription gets to another hub, until the subscription ends."""

    def __init__(
        self,
        name: str,
        source: Subscription[S],
        destination: Hub[D],
        translate: Callable[[Sequence[S]], list[Translated[D] | Failed]],
        *,
        rows: int,
        most: int,
        age_s: float,
        patience_s: float,
    ) -> None:
        self.name = name
        self.source = source
        self.books = Books(name, destination.name)
        self._destination = destination
        self._translate = translate
        self._rows = rows
        self._most = most
        self._age_s = age_s
        self._patience_s = patience_s
        self._complained: set[tuple[str, str]] = set()
        self._log = get_logger("bridge")

    async def run(self) -> None:
        """Carry until the source ends; then everything that was in it has been forwarded or dropped with a reason."""
        while True:
            try:
                items = await self.source.get_many(self._most, linger_s=self._age_s, enough=self._rows)
            except StoppedError:
                return
            await self._forward(self._enter(items))
            await clock.pause(0)  # a queue that never runs empty must not keep the loop from everybody else

    def task(self) -> asyncio.Task[None]:
        """Run as a task that says at once in the log if it fails; whoever asked for it awaits it."""
        task = asyncio.create_task(self.run(), name=self.name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._log.error("the bridge has failed", lane=self.name, error=repr(task.exception()))

    def _enter(self, items: Sequence[S]) -> list[Translated[D]]:
        carried: list[Translated[D]] = []
        for one in self._translate(items):
            self.books.take(one.stream, one.weight)
            if isinstance(one, Failed):
                self._drop(one.stream, one.weight, UNTRANSLATABLE, one.error)
            else:
                carried.append(one)
        return carried

    async def _forward(self, carried: list[Translated[D]]) -> None:
        done = 0
        try:
            for one in carried:
                reason, error = await self._publish(one.item)
                done += 1
                if reason is None:
                    self.books.settle(one.stream, one.weight)
                else:
                    self._drop(one.stream, one.weight, reason, error)
        finally:
            for one in carried[done:]:
                self._drop(one.stream, one.weight, STOPPED)

    async def _publish(self, item: D) -> tuple[str | None, Exception | None]:
        try:
            try:
                self._destination.publish(item)
            except MailboxFullError:
                await self._destination.publish_wait(item, self._patience_s)
        except StoppedError:
            return CLOSED, None
        except MailboxFullError:
            return NO_ROOM, None
        except DuodaqError as error:
            return REFUSED, error
        return None, None

    def _drop(self, stream: str, weight: int, reason: str, error: Exception | None = None) -> None:
        self.books.settle(stream, weight, reason)
        if (stream, reason) not in self._complained and len(self._complained) < 1000:
            self._complained.add((stream, reason))
            why = None if error is None else f"{type(error).__name__}: {error}"
            self._log.warning("not bridged", lane=self.name, stream=stream, reason=reason, error=why)


def attempt(translate: Callable[[], list[Translated[D]]], stream: str, weight: int) -> list[Translated[D] | Failed]:
    """What `translate` returns, or why it could not."""
    try:
        return [*translate()]
    except _TRANSLATION_ERRORS as error:
        return [Failed(stream, weight, error)]
