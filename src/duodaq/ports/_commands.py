"""A stream of bytes from a program outside, cut into whole commands: pure, it neither waits nor knows a clock.

A pty or a socket tells nobody where one write ended and the next began, so the codec says where a command ends: by its
`command_end`, if it has one (blocks, commands told apart by length), else by its terminator. CR, LF and CR LF are taken
for each other, as instruments do; the three are one end and not two.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from duodaq.ports._codec import PortCodec


@runtime_checkable
class CommandEnds(Protocol):
    """What a codec may add to PortCodec, where a terminator is not enough to tell commands of a stream apart."""

    def command_end(self, held: bytes, /) -> int:
        """How many bytes at the beginning of `held` are one whole command, its terminator included; 0: not whole."""
        ...


class CommandStream:
    """Collects what comes and gives out whole commands, terminators included.

    `held` is the beginning of a command whose end is not there.
    """

    def __init__(self, codec: PortCodec) -> None:
        self.held = b""
        self._codec = codec
        self._ends = codec.command_end if isinstance(codec, CommandEnds) else self._terminated
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take `data`; the commands that are whole now, in order."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        held = self.held + data
        found: list[bytes] = []
        while held and (end := self._ends(held)):
            found.append(held[:end])
            held = held[end:]
        self.held = held
        self._after_cr = not held and bool(found) and found[-1].endswith(b"\r")
        return found

    @property
    def may_be_whole(self) -> bool:
        """Whether what is held is a command unless more comes at once: it ends in CR, or nothing ends a command."""
        return self.held.endswith(b"\r") or bool(self.held and not self._codec.write_terminator)

    def take(self) -> bytes:
        """What is held, which is given up as the beginning of a command."""
        held, self.held = self.held, b""
        self._after_cr = held.endswith(b"\r")
        return held

    def _terminated(self, held: bytes) -> int:
        if not self._codec.write_terminator:
            return 0
        ends = [at for at in (held.find(b"\r"), held.find(b"\n")) if at >= 0]
        if not ends:
            return 0
        at = min(ends)
        if held[at : at + 2] == b"\r\n":
            return at + 2
        if held[at:] == b"\r" and self._codec.write_terminator.endswith(b"\n"):
            return 0  # the LF may be on its way, and is what the device waits for
        return at + 1
