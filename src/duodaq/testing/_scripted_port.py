"""A port without hardware: a transport whose far end is a script, and a small line protocol to speak on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from duodaq.errors import PortLostError, PortOpenError
from duodaq.ports import Framing, Lines, Receiver, Terminated


@dataclass(frozen=True)
class Answer:
    """Bytes that the scripted device says `after_s` seconds after a command, by the loop's own clock."""

    data: bytes
    after_s: float = 0.0


Script = Callable[[bytes], bytes | Answer | Iterable[Answer] | None]


class ScriptedTransport:
    """A Transport whose device answers as `script` says; keeps the contract of `duodaq.ports.Transport`.

    Args:
        script: Called with each whole line written (terminator removed); returns what the device says to it.
        name: The address.
        terminator: What ends a command.

    Attributes:
        lines: The commands that arrived, in order.
        written: All bytes that were taken.
        capacity: How many bytes the line takes before it blocks; None: any number.
    """

    def __init__(self, script: Script, name: str = "scripted", terminator: bytes = b"\n") -> None:
        self.script = script
        self.name = name
        self.terminator = terminator
        self.lines: list[bytes] = []
        self.written = bytearray()
        self.capacity: int | None = None
        self.plugged = True
        self.opened = 0
        self._partial = bytearray()
        self._receiver: Receiver | None = None
        self._writable: Callable[[], None] | None = None

    @property
    def address(self) -> str:
        return self.name

    @property
    def is_open(self) -> bool:
        return self._receiver is not None

    @property
    def descriptor(self) -> None:
        return None

    def identity(self) -> str:
        return f"scripted:{self.name}"

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        if not self.plugged:
            raise PortOpenError("unplugged", port=self.name)
        self._receiver = receiver
        self.opened += 1

    def write_nowait(self, data: bytes) -> int:
        if self._receiver is None:
            raise PortLostError("not open", port=self.name)
        taken = bytes(data) if self.capacity is None else bytes(data[: self.capacity])
        if self.capacity is not None:
            self.capacity -= len(taken)
        self.written += taken
        self._partial += taken
        while self.terminator in self._partial:
            line, _, rest = bytes(self._partial).partition(self.terminator)
            self._partial = bytearray(rest)
            self._hear_line(line)
        return len(taken)

    def _hear_line(self, line: bytes) -> None:
        self.lines.append(line)
        answers = self.script(line)
        if isinstance(answers, bytes):
            answers = Answer(answers)
        self._say_in_turn(list((answers,) if isinstance(answers, Answer) else answers or ()), 0.0)

    def _say_in_turn(self, answers: list[Answer], said_s: float) -> None:
        """Say the answers in order, also where a busy loop comes to all of them too late."""
        if answers:
            answer, *rest = answers
            loop = asyncio.get_running_loop()
            loop.call_later(
                max(0.0, answer.after_s - said_s), self._deliver, answer.data, self.opened, rest, answer.after_s
            )

    def say(self, data: bytes, after_s: float = 0.0) -> None:
        """Have the device say `data`, asked or not."""
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, self._deliver, data, self.opened)

    def _deliver(self, data: bytes, opened: int, rest: list[Answer] | None = None, said_s: float = 0.0) -> None:
        if opened != self.opened:
            return  # what was said into a lost line is lost
        self._say_in_turn(rest or [], said_s)
        if self._receiver is not None:
            self._receiver.data_received(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        self._writable = callback

    def unblock(self) -> None:
        """Let the line take bytes again without limit."""
        self.capacity = None
        callback, self._writable = self._writable, None
        if callback is not None:
            callback()

    def discard_output(self) -> int:
        return 0

    def unplug(self) -> None:
        """Lose the line; opening fails until `replug`."""
        self.plugged = False
        self._partial.clear()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.transport_lost(None)

    def replug(self) -> None:
        self.plugged = True

    async def aclose(self, timeout_s: float = 1.0) -> None:
        self._receiver = None


class ScriptedCodec:
    """A line protocol for tests: commands with ``?`` are answered by one line each (``;`` joins several).

    ``ST`` breaks in; ``MV…`` moves; ``ERR?`` is destructive; ``ID?`` tells who answers.
    """

    name = "scripted"
    write_terminator = b"\n"
    abort_bytes = b"\n"

    def __init__(self, longest_reply_s: float = 0.3) -> None:
        self.longest_reply_s = longest_reply_s

    def expects_reply(self, written: bytes, /) -> Framing | None:
        queries = written.count(b"?")
        if queries > 1:
            return Lines(queries, b"\n")
        return Terminated(b"\n", max_bytes=1024) if queries else None

    def is_break_in(self, written: bytes, /) -> bool:
        return written.startswith(b"ST")

    def moves(self, written: bytes, /) -> bool:
        return written.startswith(b"MV")

    def destructive(self, written: bytes, /) -> bool:
        return written.startswith(b"ERR?")

    def stop_bytes(self, axis: str | None, /) -> bytes | None:
        return b"ST\n" if axis is None else f"ST{axis}\n".encode()

    def probe(self) -> tuple[bytes, Framing] | None:
        return b"ID?\n", Terminated(b"\n")

    def identity(self) -> tuple[bytes, Framing] | None:
        return b"ID?\n", Terminated(b"\n")
