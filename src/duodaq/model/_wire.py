from __future__ import annotations

from typing import Literal

import msgspec

Direction = Literal[">", "<", "!"]


class WireRecord(msgspec.Struct, frozen=True, gc=False):
    """What passed a port: ``>`` bytes written, ``<`` bytes heard, ``!`` what happened there, as a sentence in UTF-8.

    Attributes:
        t_ns: UTC nanoseconds: when the line took the bytes, or gave them.
        port: Which.
        direction: ``>``, ``<`` or ``!``.
        data: The bytes as they were; a command or a reply may be spread over several records.
        holder: In whose name; ``"broker"`` for its own, empty for nobody.
        exchange: The number of the exchange they belong to, counted by port; 0 for none (late, unasked, the broker's).
        trace_id: Of the action that the exchange was made for, if that has one.
        sequence: The number of the record, counted by port from 1. A gap means that records are missing.
    """

    t_ns: int
    port: str
    direction: Direction
    data: bytes
    holder: str
    exchange: int
    trace_id: str | None = None
    sequence: int = 0
