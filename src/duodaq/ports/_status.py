from __future__ import annotations

from enum import StrEnum

import msgspec


class PortState(StrEnum):
    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    RESYNC = "resynchronising"
    LOST = "lost"


class PortStatus(msgspec.Struct, frozen=True):
    """What is known of one port now: its holder and since how long, who waits, and its counts since it was added."""

    name: str
    state: PortState
    address: str
    holder: str | None = None
    held_s: float = 0.0
    queue: int = 0
    exchanges: int = 0
    errors: int = 0
    reconnects: int = 0
    resyncs: int = 0
    late: int = 0
    stray_bytes: int = 0
    copies: int = 0
    last_error: str = ""
