"""A scan that waits while an alarm or a person says so, and ends when a person says that."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from bluesky.utils import Msg, RequestAbort

from duodaq.clock import Deadline
from duodaq.errors import DuodaqError
from duodaq.telemetry import get_logger

Holds = Callable[[], list[str]]
"""Names what a scan waits for now: alarms, a pause. Raises ScanAbortedError if it has to end."""
PAUSED = "paused by "
_LOOK_S = 0.2
_log = get_logger("bluesky")


class ScanAbortedError(RequestAbort):
    """Somebody has aborted the scan: who, in words."""


def why_ended(holds: Holds) -> str:
    """Why the scan has to end; empty if it has not, or nobody can be asked."""
    try:
        holds()
    except ScanAbortedError as error:
        return str(error)
    except DuodaqError:
        pass  # the lab is gone: what failed says so
    return ""


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


def settled(settle_s: float, holds: Holds | None) -> Generator[Any, Any, Any]:
    """Wait so long, as part of a plan; a scan that has to end does so at once, however long it would have waited."""
    limit = Deadline(settle_s)
    while holds is not None and limit.left_s > _LOOK_S:
        yield Msg("sleep", None, _LOOK_S)
        holds()
    yield Msg("sleep", None, limit.left_s)
