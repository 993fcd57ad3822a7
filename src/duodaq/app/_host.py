"""A lab as a program of its own: its lock, its control socket, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Generator

from duodaq.app._control import Client
from duodaq.app._lab import Lab
from duodaq.app._last_run import how_it_ended
from duodaq.app._service import LabService
from duodaq.link import LAB_PROTOCOL, LabLock, LinkServer, tap_path, watchdog_path
from duodaq.model import ShutdownReport
from duodaq.ports import Gate
from duodaq.tap import TapServer

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class LabDoor:
    """By which other programs find a lab and reach it: its lock, its control socket, and its live streams.

    Made before the lab is started, and released when it has ended.

    Raises:
        LifecycleError: A lab of this name is running.
    """

    def __init__(self, lab: Lab, ask_to_end: Callable[[], None]) -> None:
        file = lab.definition.file
        self._lock = LabLock(lab.definition.name, "" if file is None else str(file.resolve()))
        lab.manager.guard.socket_path = watchdog_path(self._lock.socket)
        lab.observers.last_run = self._lock.last
        lab.observers.sign_of_life = self._lock.note_alive
        service = LabService(lab, ask_to_end)
        self._server = LinkServer(
            self._lock.socket,
            service.handle,
            version=LAB_PROTOCOL,
            talks={"ports": Gate(lab.manager.broker).talk},
            sessions=lambda: service.session(Client("a program")),
        )
        self._lab = lab
        self._tap: TapServer | None = None

    async def open(self) -> None:
        """Let programs in: the lab has started."""
        self._tap = TapServer(tap_path(self._lock.socket), self._lab.manager.v4_data, lambda: live_streams(self._lab))
        self._tap.start()
        await self._server.start()

    async def close_tap(self) -> None:
        """End the live streams; first of all, for a reader that has stopped would be waited for, as a recorder is."""
        if self._tap is not None:
            await self._tap.aclose()

    async def aclose(self) -> None:
        """Let nobody in any more. Idempotent."""
        await self.close_tap()
        if self._tap is not None:
            await self._server.aclose()

    def release(self) -> None:
        """Let the next lab of this name have its place, and know how this one ended."""
        self._lock.release(how_it_ended(self._lab.report))


class LabHost:
    """Runs a lab until it is asked to end: by a signal, by a client, or by the work it was given.

    The first Ctrl-C stops everything in order; the second makes that quicker. Neither skips the safe state.
    """

    def __init__(self, lab: Lab, say: Callable[[str], None] = lambda _: None) -> None:
        self.lab = lab
        self._say = say
        self._asked = asyncio.Event()
        self._requests = 0

    def ask_to_end(self) -> None:
        """End in order; asked twice, faster."""
        self._requests += 1
        self._asked.set()
        if self._requests > 1:
            self.lab.hurry()
        with contextlib.suppress(OSError):  # the terminal may be gone: that may be why it ends
            if self._requests == 1:
                self._say("Stopping in order: what is in hand may end first. Ctrl-C once more makes it faster.")
            elif self._requests == 2:
                self._say("Faster: what is in hand is no longer waited for.")

    async def run(self, ready: Callable[[], Awaitable[None]] | None = None) -> ShutdownReport:
        """Start the lab, serve its control socket, wait for the end and return the shutdown report.

        Raises:
            LifecycleError: A lab of this name is running.
            DuodaqError: The start failed; everything was rolled back.
        """
        door = LabDoor(self.lab, self.ask_to_end)
        try:
            with self._signals():
                return await self._serve(door, ready)
        finally:
            door.release()

    async def _serve(self, door: LabDoor, ready: Callable[[], Awaitable[None]] | None) -> ShutdownReport:
        starting = asyncio.ensure_future(self.lab.start())
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return await self.lab.shutdown()
            await starting
            try:
                await door.open()
                if ready is not None:
                    await ready()
                await asked
                await door.close_tap()
                return await self.lab.shutdown()
            finally:
                await door.aclose()
        finally:
            asked.cancel()
            await asyncio.gather(asked, starting, return_exceptions=True)
            await self.lab.shutdown()

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask_to_end)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


def live_streams(lab: Lab) -> list[str]:
    """What there is to be read live: every channel, and whatever else was published."""
    channels = [f"{channel.instrument}.{channel.channel}" for channel in lab.manager.channels()]
    return channels + [row.stream for row in lab.manager.v4_data.ledger().rows()]
