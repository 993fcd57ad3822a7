from __future__ import annotations

import dis
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

_OURS = f"{Path(__file__).parents[1]}/"
_STANDARD = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_INSTALLED = tuple({f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")})  # may lie within the other
_LIBRARIES = (*_STANDARD, *_INSTALLED)


def told(error: BaseException) -> str:
    """`error` for somebody who did not see it happen: its type, its words, and the line of his own code.

    That is the innermost line which is neither in duodaq nor in an installed library; if there is none, the innermost
    one in a library; none at all where only duodaq's own code was run.
    """
    sentence = named(error)
    place = _place(error)
    return f"{sentence}, at {place}" if place else sentence


def broke_off(error: BaseException) -> bool:
    """Whether foreign code failed at what it was doing, rather than said `error` itself by a ``raise``.

    Looked at is its innermost line that belongs neither to duodaq nor to the standard library; no, if no foreign code
    was run.
    """
    found: TracebackType | None = None
    seen = error.__traceback__
    while seen is not None:
        if _is_foreign(seen.tb_frame.f_code.co_filename):
            found = seen
        seen = seen.tb_next
    return found is not None and found.tb_frame.f_code.co_code[found.tb_lasti] != dis.opmap["RAISE_VARARGS"]


def words(error: object) -> str:
    """What an exception, or anything else, says of itself; that of a driver may fail at that too, and then says so."""
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


def _is_foreign(file: str) -> bool:
    if file.startswith((_OURS, "<")):
        return False
    return not file.startswith(_STANDARD) or file.startswith(_INSTALLED)
