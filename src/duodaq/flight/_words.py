"""What is said over Flight beside Arrow's own, pure: JSON, so that any language can say it."""

from __future__ import annotations

import msgspec

from duodaq.tap import Opening


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command of an exchange: which live stream.

    `resume` is what the message at the end of an exchange said, if it ended because the columns changed.
    """

    stream: str
    name: str = "reader"
    capacity: int = 1024
    max_bytes: int = 64 * 2**20
    resume: str | None = None

    @property
    def opening(self) -> Opening:
        """The same, as the lab is told it."""
        return Opening(self.stream, f"flight {self.name}", self.capacity, self.max_bytes)


class Credits(msgspec.Struct, frozen=True):
    """What a reader sends: it takes so many more batches."""

    credits: int


class Begun(msgspec.Struct, frozen=True):
    """The first message of an exchange: the lab knows the reader, and its ledger by this name."""

    begun: str


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last message of an exchange: why it ends; with `resume`, another one goes on where this one ends."""

    end: str
    resume: str | None = None


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ticket: one part of a stream of a recorded run. A part is what was written with the same columns."""

    run: str
    stream: str
    part: int = 0


def encode(said: msgspec.Struct) -> bytes:
    """What is said, as JSON."""
    return msgspec.json.encode(said)
