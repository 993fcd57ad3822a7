"""Where commands wait while their instrument moves from one runtime to the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from duodaq.clock import monotonic_s
from duodaq.errors import LifecycleError, ReplyTimeoutError, StoppedError
from duodaq.model import Command, Fate, command_name


class Gates:
    """How many commands each instrument has in hand, and which instruments take none at the moment."""

    def __init__(self) -> None:
        self.closed: dict[str, asyncio.Event] = {}
        self._in_hand: dict[str, int] = {}
        self._idle: dict[str, asyncio.Event] = {}
        self._stops: dict[str, int] = {}
        self._changing: list[str] = []

    def note_stop(self, instrument: str) -> None:
        """The instrument was stopped: what moves and waits here is not done."""
        if instrument in self.closed:
            self._stops[instrument] = self._stops.get(instrument, 0) + 1

    def enter(self, instrument: str) -> None:
        """A command is given to its runtime."""
        self._in_hand[instrument] = self._in_hand.get(instrument, 0) + 1

    def leave(self, instrument: str) -> None:
        """It has ended."""
        left = self._in_hand[instrument] - 1
        if left:
            self._in_hand[instrument] = left
            return
        del self._in_hand[instrument]
        if (idle := self._idle.get(instrument)) is not None:
            idle.set()

    def close(self, instrument: str) -> None:
        """Let commands to it wait from now on.

        Raises:
            LifecycleError: It is on its way already, or is being removed or restarted. The gate is as it was.
        """
        if instrument in self.closed or instrument in self._changing:
            what = "is on its way already" if instrument in self.closed else "is being removed or restarted"
            raise LifecycleError(f"it {what}", instrument=instrument)
        self.closed.setdefault(instrument, asyncio.Event())

    @contextlib.contextmanager
    def changing(self, instrument: str, wish: str) -> Generator[None]:
        """Remove it, or close and start it, within this; meanwhile it begins no move.

        Raises:
            LifecycleError: It is on its way to the other runtime. Nothing was done.
        """
        if instrument in self.closed:
            raise LifecycleError(
                "it is on its way to the other runtime", instrument=instrument, command=wish, left="it goes on"
            )
        self._changing.append(instrument)
        try:
            yield
        finally:
            self._changing.remove(instrument)

    def open(self, instrument: str) -> None:
        """Let them go on."""
        gate = self.closed.pop(instrument, None)
        if gate is not None:
            gate.set()

    async def idle(self, instrument: str, limit_s: float) -> bool:
        """Wait until the instrument has no command in hand; whether that came within `limit_s`."""
        if instrument not in self._in_hand:
            return True
        idle = self._idle[instrument] = asyncio.Event()
        try:
            async with asyncio.timeout(limit_s):
                await idle.wait()
        except TimeoutError:
            return False
        finally:
            del self._idle[instrument]
        return True

    async def pass_through(
        self, instrument: str, command: Command, deadline_s: float | None, *, moves: bool
    ) -> float | None:
        """Wait while the gate is closed; what is left of the deadline.

        Raises:
            StoppedError: It `moves`, and a stop came meanwhile. Nothing was begun.
            ReplyTimeoutError: The deadline passed here. Nothing was begun.
        """
        began_s, stops = monotonic_s(), self._stops.get(instrument, 0)
        while (gate := self.closed.get(instrument)) is not None:
            left_s = None if deadline_s is None else deadline_s - (monotonic_s() - began_s)
            try:
                async with asyncio.timeout(left_s):
                    await gate.wait()
            except TimeoutError:
                what = "the instrument was on its way to the other runtime"
                raise ReplyTimeoutError(
                    what, fate=Fate.NOT_DONE, instrument=instrument, command=command_name(command)
                ) from None
        if moves and self._stops.get(instrument, 0) != stops:
            raise StoppedError("a stop came before it began", instrument=instrument, command=command_name(command))
        return None if deadline_s is None else max(0.0, deadline_s - (monotonic_s() - began_s))
