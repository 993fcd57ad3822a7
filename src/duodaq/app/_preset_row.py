from __future__ import annotations

from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One setting of a preset beside what it is now.

    `what` says what loading does about it: ``set``, ``same`` (it is so already), ``left`` (it may emit, open or move:
    a person does that), or ``missing`` (it cannot be read now, or the preset does not have it). `why` says why, unless
    it is set.
    """

    instrument: str
    name: str
    now: Any
    then: Any
    unit: str
    what: str
    why: str = ""
