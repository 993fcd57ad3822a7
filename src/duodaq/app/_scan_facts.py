"""What a scan is to those who ask about it, and to the program that carries it out."""

from __future__ import annotations

from typing import Any

import msgspec

UNDER_WAY = ("starting", "running", "paused", "ending")


class ScanStatus(msgspec.Struct):
    """A scan: `state` is ``starting``, ``running``, ``paused``, ``ending``, ``complete``, ``aborted`` or ``failed``.

    `done` of `planned` points are taken. `who` began it, `holds` names what it waits for, `why` says how it ended.
    `run` is Bluesky's id of it, `directory` the recording that has it. Times are UTC ns.
    """

    number: int
    axes: list[str]
    read: list[str]
    planned: int
    who: str
    detached: bool
    since_ns: int
    done: int = 0
    state: str = "starting"
    why: str = ""
    holds: list[str] = []
    run: str | None = None
    directory: str | None = None
    ended_ns: int | None = None


class ScanWish(msgspec.Struct, frozen=True):
    """A detached scan as it is wanted: axes by name, each with its positions, the slowest first."""

    axes: tuple[tuple[str, tuple[float, ...]], ...]
    read: tuple[str, ...]
    settle_s: float = 0.0
    snake: bool = True
    metadata: dict[str, Any] = {}

    @property
    def planned(self) -> int:
        """How many points it has."""
        count = 1
        for _, positions in self.axes:
            count *= len(positions)
        return count
