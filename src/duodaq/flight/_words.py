"""What is said over Flight beside Arrow's own, pure: JSON, so that any language can say it."""

from __future__ import annotations

import msgspec

from duodaq.errors import ConfigError
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
    wait: bool = False

    @property
    def opening(self) -> Opening:
        """The same, as the lab is told it."""
        return Opening(self.stream, f"flight {self.name}", self.capacity, self.max_bytes, self.wait)


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
    """A ticket: one part of a stream of a recorded run: what came with the same columns, and with no gap."""

    run: str
    stream: str
    part: int = 0


class Lost(msgspec.Struct, frozen=True):
    """Rows of a recorded stream that are not there: how many (None: nobody knows), why, and between which numbers."""

    rows: int | None
    reason: str
    after: int | None = None
    before: int | None = None
    file: str | None = None

    def __str__(self) -> str:
        many = "rows" if self.rows is None else "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        where = "at the beginning" if self.after is None else f"behind number {self.after}"
        return f"{many} {where} ({self.reason}{f' in {self.file}' if self.file else ''})"


class Gaps(msgspec.Struct, frozen=True):
    """What is missing of a recorded stream before one of its parts; or of all of it."""

    gaps: list[Lost]


def encode(said: msgspec.Struct) -> bytes:
    """What is said, as JSON."""
    return msgspec.json.encode(said)


def checked_token(token: str) -> str:
    """The same.

    Raises:
        ConfigError: No header can carry it. It is not in the message.
    """
    if not (token.isascii() and token.isprintable()) or token != token.strip():
        remedy = "Take letters, digits and signs of ASCII, such as those of `openssl rand -hex 16`."
        raise ConfigError(
            "the token cannot be shown: it has other characters than printable ones of ASCII, or spaces around it",
            remedy=remedy,
        )
    return token
