"""A device that answers each question with the question, after a random delay and in pieces; it sees who interleaves.

A program: ``echo_device.py LINK LOW_MS HIGH_MS``. It says ``ready``, serves a pty at LINK until its stdin ends, and
says then what it has counted, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

from duodaq.sim import Faults, Line, LocalTable, PtyEndpoint, Reply, SimServer, Tally

IDENTITY = b"duodaq,echo,0,1\n"
_QUESTION = re.compile(rb"Q(\w+)\?$")


class EchoDevice:
    """``Qwords?`` is answered by ``words``, ``*IDN?`` by who it is; anything else is misframed."""

    name = model = "echo"
    line = Line(baud=1_000_000)
    paced = False

    def __init__(self) -> None:
        self.tally = Tally()
        self._held = b""

    def open_session(self, client: int, now_s: float) -> bytes:
        return b""

    def close_session(self, client: int) -> None:
        self._held = b""

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        if pending:
            self.tally.interleavings += 1
        *lines, self._held = (self._held + data).split(b"\n")
        if len(lines) > 1:
            self.tally.interleavings += len(lines) - 1
        return [Reply(0.0, answer, client) for line in lines if (answer := self._answer(line.strip()))]

    def _answer(self, line: bytes) -> bytes:
        self.tally.commands += 1
        question = _QUESTION.fullmatch(line)
        if line == b"*IDN?":
            return IDENTITY
        if question is None:
            self.tally.misframed += bool(line)
            return b""
        self.tally.exchanges += 1
        return question[1] + b"\n"

    def due(self, now_s: float) -> list[Reply]:
        return []

    def due_at_s(self) -> float | None:
        return None

    def power_cycle(self, now_s: float) -> None:
        self._held = b""

    def report(self) -> dict[str, Any]:
        return self.tally.as_dict()


async def serve(link: str, low_ms: float, high_ms: float) -> None:
    faults = Faults(jitter_ms=(low_ms, high_ms))
    server = SimServer(EchoDevice(), PtyEndpoint(link), table=LocalTable(1), paced=False, faults=faults, seed=1)
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    sys.stdout.write(json.dumps(server.report()) + "\n")
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
