"""A scan that waits while an alarm or a person says so, and ends when a person says that."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from bluesky.utils import Msg, RequestAbort

from duodaq.telemetry import get_logger

Holds = Callable[[], list[str]]
"""Names what a scan waits for now: alarms, a pause. Raises ScanAbortedError if it has to end."""
PAUSED = "paused by "
_LOOK_S = 0.2
_log = get_logger("bluesky")


class ScanAbortedError(RequestAbort):
    """Somebody has aborted the scan: who, in words."""


def while_held(holds: Holds) -> Generator[Any, Any, Any]:
    """Wait, as part of a plan, while `holds` names anything."""
    names = holds()
    if not names:
        return
    alarms = [name for name in names if not name.startswith(PAUSED)]
    if alarms:
        _log.warning("the scan waits for its alarms: until they are over, or acknowledged", alarms=alarms)
    else:
        _log.warning("the scan waits until it is resumed", why=names)
    while holds():
        yield Msg("sleep", None, _LOOK_S)
    _log.warning("the scan goes on")
