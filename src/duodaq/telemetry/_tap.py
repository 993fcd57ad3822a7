"""What is logged, counted and told on: every warning and error becomes a figure, whoever else reads the log.

It is the program's, as the log is: several labs in one program share it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

_MOST = 300
_OTHERS = "(others)"
_COUNTED = frozenset({"warning", "error", "critical", "exception"})
_lock = threading.Lock()
_counts: dict[tuple[str, str], int] = {}
_listeners: tuple[Callable[[str, Mapping[str, Any]], None], ...] = ()


def note_event(level: str, event: Mapping[str, Any]) -> None:
    """Something was logged at `level`. Never raises for a listener."""
    if level in _COUNTED:
        _count("error" if level == "exception" else level, str(event.get("event", "")))
    for listener in _listeners:
        try:
            listener(level, event)
        except Exception:  # noqa: BLE001 - whoever logs is not harmed by whoever listens
            _count("error", "somebody who listens to the log failed")


def event_counts() -> dict[tuple[str, str], int]:
    """How often each warning and error was logged since the program began, by level and sentence."""
    with _lock:
        return dict(_counts)


def listen_to_log(listener: Callable[[str, Mapping[str, Any]], None]) -> Callable[[], None]:
    """Call `listener` with level and facts of each line that is logged, in the thread that logs it.

    It must be quick, and must not log; if it raises, that is counted. Call the result to end that.
    """
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)

    def end() -> None:
        global _listeners
        with _lock:
            _listeners = tuple(one for one in _listeners if one is not listener)

    return end


def _count(level: str, event: str) -> None:
    with _lock:
        key = (level, event)
        if key not in _counts and len(_counts) >= _MOST:
            key = (level, _OTHERS)
        _counts[key] = _counts.get(key, 0) + 1
