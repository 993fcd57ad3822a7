"""A meeting of a V2 driver and a V4 actor, wherever each of them lives."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

POWER, POSITION = b"D?\n", b"1TP\r"


class Meeting:
    """Two come in, or nobody has met: each waits inside for the other, for a second at most.

    Whoever comes in first puts up its own sign and then looks for the other's. One of the two looks last, and sees a
    sign that is taken down only when its owner leaves: both are inside at that moment.
    """

    WAIT_S = 1.0
    _other: ClassVar = {"v2": "v4", "v4": "v2"}

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.complete = Gate(self._sign("met"))
        self.evidence = Evidence(self._sign("notes"))

    @property
    def met(self) -> bool:
        """Whether both were inside at the same moment."""
        return self.complete.is_open

    def enter(self, who: str) -> None:
        """Come in, and see whether the other is there."""
        self.evidence.note("inside", who=who)
        Gate(self._sign(who)).open()
        if os.path.exists(self._sign(self._other[who])):
            self.complete.open()

    def leave(self, who: str) -> None:
        """Go out again."""
        Gate(self._sign(who)).close()
        self.evidence.note("outside", who=who)

    def _sign(self, name: str) -> str:
        return os.path.join(self._directory, name)


class MeetingDriver:
    """V2's: waits inside for V4, then asks its device."""

    def __init__(self, serial: Any, meeting: str) -> None:
        self.serial = serial
        self.meeting = Meeting(meeting)

    def meet(self, token: str) -> str:
        """Wait for the other side; the token, if that has come to an end."""
        self.meeting.enter("v2")
        self.meeting.complete.wait(Meeting.WAIT_S)
        self.serial.write(POWER)
        self.serial.readline()
        self.meeting.leave("v2")
        return f"v2 {token}"


class Meet:
    """Wait in the actor until the other side is inside too."""

    def __init__(self, token: str) -> None:
        self.token = token


class MeetingActor(InstrumentActor):
    """V4's: waits inside for V2, then asks its device."""

    operations: ClassVar = {"meet": Meet}

    @handler(Meet)
    async def meet(self, message: Meet) -> str:
        """Wait for the other side; the token, if that has come to an end."""
        meeting = Meeting(self.definition.args["meeting"])
        meeting.enter("v4")
        await meeting.complete.reached(Meeting.WAIT_S)
        await self.port.exchange(POSITION, holder=self.context.holder)
        meeting.leave("v4")
        return f"v4 {message.token}"
