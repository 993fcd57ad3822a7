from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from duodaq.ports._framing import Framing


class PortCodec(Protocol):
    """What the broker has to know of the protocol spoken on a port: pure functions of bytes, kept by drivers.

    A codec is shared by everyone on the port and holds no state of an exchange; each Framing it returns is a new one.
    """

    @property
    def name(self) -> str: ...

    @property
    def write_terminator(self) -> bytes:
        """What ends a command; empty where commands are told apart by length."""
        ...

    @property
    def abort_bytes(self) -> bytes:
        """What terminates a half-written command, so that the next one is read from its beginning."""
        ...

    @property
    def longest_reply_s(self) -> float:
        """After how long, at most, a reply begins that comes at all."""
        ...

    def expects_reply(self, written: bytes, /) -> Framing | None:
        """The framing of all that the device will answer to `written`; None if it answers nothing."""
        ...

    def is_break_in(self, written: bytes, /) -> bool:
        """Whether the device takes `written` even while it owes a reply, and answers nothing to it."""
        ...

    def moves(self, written: bytes, /) -> bool:
        """Whether `written` makes something move or emit."""
        ...

    def destructive(self, written: bytes, /) -> bool:
        """Whether reading the answer to `written` takes it away (error queues, event registers)."""
        ...

    def stop_bytes(self, axis: str | None, /) -> bytes | None:
        """What stops `axis`, or all; None if the device knows no such thing."""
        ...

    def probe(self) -> tuple[bytes, Framing] | None:
        """A harmless query with a constant answer, by which the broker verifies that questions and answers match."""
        ...

    def identity(self) -> tuple[bytes, Framing] | None:
        """The query whose answer tells this very device from others."""
        ...


@runtime_checkable
class Explains(Protocol):
    """What a codec may add to PortCodec: what bytes mean, in a few words, for whoever looks at the line."""

    def explain(self, written: bytes, /) -> str:
        """What `written` asks or orders; empty if it is not known."""
        ...

    def explain_reply(self, written: bytes, reply: bytes, /) -> str:
        """What `reply` says, as the answer to `written`; empty if it is not known."""
        ...


class Deed(NamedTuple):
    """One thing that bytes ask or order: what it is about, the value given with it, and whether it is answered.

    Two commands that mean the same have equal subjects, however they are written. The subject of something about one
    axis begins with it: ``axis 1: position``.
    """

    subject: str
    value: str = ""
    asks: bool = False


@runtime_checkable
class Interprets(Protocol):
    """What a codec may add to PortCodec: what bytes mean, for a comparison of two drivers."""

    def deeds(self, written: bytes, /) -> list[Deed]:
        """Everything that `written` asks and orders, in order."""
        ...


def deeds_of(codec: PortCodec, written: bytes) -> list[Deed]:
    """Everything that `written` asks and orders; of a codec that cannot tell, the text itself."""
    if isinstance(codec, Interprets):
        return codec.deeds(written)
    text = written.strip().decode("latin-1")
    return [Deed(text, asks=codec.expects_reply(written) is not None)] if text else []


def meaning(codec: PortCodec, written: bytes) -> str:
    """What `written` means, in a few words, as far as `codec` can tell."""
    said = codec.explain(written) if isinstance(codec, Explains) else ""
    question = codec.expects_reply(written) is not None
    found = [said or ("question" if question else "command" if written.strip() else "")]
    if codec.is_break_in(written):
        found.append("breaks in")
    if codec.moves(written):
        found.append("moves or emits")
    if codec.destructive(written):
        found.append("reading takes it away")
    return ", ".join(part for part in found if part)


def meaning_of_reply(codec: PortCodec, written: bytes, reply: bytes) -> str:
    """What `reply` says, as the answer to `written`, as far as `codec` can tell."""
    return codec.explain_reply(written, reply) if isinstance(codec, Explains) else ""
