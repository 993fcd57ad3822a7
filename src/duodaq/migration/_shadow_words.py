"""What a lab and the process of a shadow say to each other: one struct for each sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from duodaq.link import Message
from duodaq.migration._beside import Beside
from duodaq.model import WireRecord
from duodaq.workers import Log


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """What the process is to be.

    Attributes:
        anchor_ns: The lab's clock.
        memory_bytes: What it may take on top of what it begins with.
        lives_inline: Whether the driver is to live on the lab's own loop, where it must never block.
    """

    beside: Beside
    source: str
    anchor_ns: int
    log_level: int
    memory_bytes: int | None
    lives_inline: bool


# ---- the lab says ----------------------------------------------------------------------------------------------------


class Be(Message, frozen=True, tag="b"):
    """The first message: a pickled ShadowPlan."""

    plan: bytes


class Past(Message, frozen=True, tag="p"):
    """What the port's log still has: known, but no evidence."""

    records: list[WireRecord]


class Start(Message, frozen=True, tag="s"):
    """Start the V4 driver: there is no more of the past."""


class Records(Message, frozen=True, tag="r"):
    """What the port's log has become."""

    records: list[WireRecord]


class Number(Message, frozen=True, tag="n"):
    """A measurement of V2's that is one number."""

    channel: str
    unit: str
    t_ns: int
    value: float


class NoNumber(Message, frozen=True, tag="x"):
    """One that is not."""

    channel: str


class Commanded(Message, frozen=True, tag="c"):
    """V2 is given this command, a parcel, under this number."""

    number: int
    command: Any
    trace_id: str


class Became(Message, frozen=True, tag="e"):
    """It has ended: with a number or nothing to be compared, or with an error; or nobody waits for it any more."""

    number: int
    result: float | int | None = None
    error: str | None = None
    is_known: bool = True


class News(Message, frozen=True, tag="i"):
    """What has happened since the last of these, in its order."""

    items: list[Records | Number | NoNumber | Commanded | Became]
    latched: bool


class Tell(Message, frozen=True, tag="t"):
    """Say what was found; so many readings of V2's have failed."""

    v2_failures: int


# ---- the process says ------------------------------------------------------------------------------------------------


class Made(Message, frozen=True, tag="M"):
    """It is what it was told to be; or, with an error, cannot."""

    error: dict[str, Any] | None = None


class Began(Message, frozen=True, tag="B"):
    """The shadow has begun; or, with an error, cannot."""

    error: dict[str, Any] | None = None


class Told(Message, frozen=True, tag="T"):
    """The answer to a Tell: a report as plain values."""

    report: dict[str, Any]


decode_from_lab: Any = msgspec.msgpack.Decoder(Be | Past | Start | News | Tell).decode
decode_from_shadow: Any = msgspec.msgpack.Decoder(Made | Began | Told | Log).decode
