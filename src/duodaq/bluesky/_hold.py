"""A scan that waits while an alarm says so."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from bluesky.utils import Msg

from duodaq.telemetry import get_logger

Holds = Callable[[], list[str]]
"""Names the alarms for which a scan waits now."""
_LOOK_S = 0.2
_log = get_logger("bluesky")


def while_held(holds: Holds) -> Generator[Any, Any, Any]:
    """Wait, as part of a plan, while `holds` names any alarm."""
    alarms = holds()
    if not alarms:
        return
    _log.warning("the scan waits for its alarms: until they are over, or acknowledged", alarms=alarms)
    while holds():
        yield Msg("sleep", None, _LOOK_S)
    _log.warning("the scan goes on")
