from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_OURS = f"{Path(__file__).parents[1]}/"
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def told(error: BaseException) -> str:
    """`error` for somebody who did not see it happen: its type, its words, and the line of his own code.

    That is the innermost line which is neither in duodaq nor in an installed library; if there is none, the innermost
    one in a library; none at all where only duodaq's own code was run.
    """
    sentence = named(error)
    place = _place(error)
    return f"{sentence}, at {place}" if place else sentence


def words(error: BaseException) -> str:
    """What `error` says of itself; an exception of a driver may fail at that too, and then says so."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - whatever a foreign __str__ raises
        return f"({type(error).__name__} without words: its __str__ raised {type(fault).__name__})"


def named(error: BaseException) -> str:
    """The type of `error` and its words, if it has any."""
    text = words(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((_OURS, "<"))]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    return next((f"{frame.filename}:{frame.lineno}" for frame in reversed(own or frames)), "")
