"""Power meters that fail, or of which their process dies, at a stated moment; loaded by path as a lab's own file is."""

from __future__ import annotations

import os
import signal
from typing import Any

from duodaq.clock import pause
from duodaq.errors import LifecycleError
from duodaq.v4.instruments import Newport1830C


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DiesAtItsEnd(Newport1830C):
    """A measurement of it has a number, and has not left its process, when that dies."""

    async def on_stop(self, reason: Any) -> None:
        self.publish_scalar("power", 1.0, "W")
        die()


class FailsAtItsStart(Newport1830C):
    """A measurement of it has been published, and another has a number, when its start fails."""

    async def on_start(self) -> None:
        await self.connect()
        self.publish_scalar("power", 2.0, "W")
        self.streams.flush()
        await pause(0.1)
        self.publish_scalar("power", 3.0, "W")
        self.fail()

    def fail(self) -> None:
        raise LifecycleError("it does not want to")


class DiesAtItsStart(FailsAtItsStart):
    """The same; its process dies of it."""

    def fail(self) -> None:
        die()
