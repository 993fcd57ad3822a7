"""The trigger by the input itself: at which level, and how many samples before it are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.sim.scpi._argument import Args
from duodaq.sim.scpi._sense import nr3
from duodaq.sim.scpi._tree import Command
from duodaq.sim.scpi._trigger import TriggerSystem

__all__ = ["level_commands"]

_HIGHEST = 1000.0


def level_commands(system: TriggerSystem, memory: int, idle_first: Callable[[Any], Any]) -> list[Command]:
    """TRIGger:LEVel and SAMPle:COUNt:PRETrigger, of instruments with the option DIG.

    Source: Truevolt series operating and service guide, SAMPle subsystem (0 to 1,999,999 with the option MEM, default
    0) and TRIGger subsystem.
    """

    def level(args: Args) -> None:
        system.level = args.number(-_HIGHEST, _HIGHEST, 0)

    def level_read(args: Args) -> str:
        limit = args.limit(-_HIGHEST, _HIGHEST, 0)
        return nr3(system.level if limit is None else limit)

    def before(args: Args) -> None:
        system.pretrigger = args.integer(0, memory - 1, 0)

    def before_read(args: Args) -> str:
        limit = args.limit(0, memory - 1, 0)
        return f"{system.pretrigger if limit is None else round(limit):+d}"

    return [
        Command("TRIGger:LEVel", set=idle_first(level), query=level_read),
        Command("SAMPle:COUNt:PRETrigger", set=idle_first(before), query=before_read),
    ]
