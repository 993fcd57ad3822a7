from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from duodaq.errors import LifecycleError
from duodaq.ports._framing import Framing


@runtime_checkable
class StatusCodec(Protocol):
    """A codec of a device with a status byte."""

    def status_query(self) -> bytes:
        """The query whose answer is the status byte, as a decimal number."""
        ...


class AsTold:
    """Stands for the framing of a reply of which only the broker's side knows whether and how it comes."""

    @property
    def rest(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> bytes | None:
        raise LifecycleError("a reply is put together where its port is")

    def reset(self) -> None:
        """Nothing is kept here."""


AS_TOLD: Final = AsTold()


class ToldCodec:
    """What a program outside knows of a port's codec: facts that the lab told it. The rest is decided there."""

    abort_bytes = b""

    def __init__(
        self, name: str, write_terminator: bytes = b"", longest_reply_s: float = 0.0, status_query: bytes | None = None
    ) -> None:
        self.name = name
        self.write_terminator = write_terminator
        self.longest_reply_s = longest_reply_s
        self.told_status_query = status_query

    def expects_reply(self, written: bytes) -> Framing | None:
        """That is known when it has been written."""
        return AS_TOLD

    def is_break_in(self, written: bytes) -> bool:
        """Known to the broker's side alone."""
        return False

    def moves(self, written: bytes) -> bool:
        """Known to the broker's side alone."""
        return False

    def destructive(self, written: bytes) -> bool:
        """Known to the broker's side alone."""
        return False

    def stop_bytes(self, axis: str | None) -> bytes | None:
        """None that may be used from here."""
        return None

    def probe(self) -> tuple[bytes, Framing] | None:
        """None that may be used from here."""
        return None

    def identity(self) -> tuple[bytes, Framing] | None:
        """None that may be used from here."""
        return None


def status_query_of(codec: object) -> bytes | None:
    """The query for the status byte that belongs to `codec`, if its devices have one."""
    if isinstance(codec, ToldCodec):
        return codec.told_status_query
    return codec.status_query() if isinstance(codec, StatusCodec) else None
