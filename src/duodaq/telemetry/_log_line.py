"""One line of the log as text: whatever an instrument says, it begins no further line, moves no cursor, and ends."""

from __future__ import annotations

import json
import math
import re
from collections.abc import MutableMapping
from typing import Any, cast

from duodaq.telemetry._traceback import words

LONGEST_TEXT = 10_000
LONGEST_LINE = 100_000
_DEPTH = 8
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON lets through, and some reader takes for the end of a line, a command to its terminal, or no text."""
_PLAIN = (bool, int, float, type(None))


def as_json(event: Any, **_: Any) -> str:
    """As structlog asks for it: one line that any reader of JSON takes, whatever is in it."""
    try:
        line = json.dumps(event, default=words, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        line = json.dumps(_plain(event), ensure_ascii=False, allow_nan=False)
    if len(line) > LONGEST_LINE:
        line = json.dumps(_shortened(event), ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def for_a_person(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog's, before its renderer for a console."""
    for name, value in event.items():
        if name == "exc_info" or isinstance(value, _PLAIN):
            continue
        text = value if isinstance(value, str) else _repr(value)
        if len(text) > LONGEST_TEXT:
            text = cut(text, LONGEST_TEXT)
        if name != "event":
            event[name] = text if isinstance(value, str) else _Said(text)
        elif not text.isprintable():
            event[name] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        else:
            event[name] = text
    return event


def cut(text: str, longest: int) -> str:
    """The beginning of a text that is too long, and how much was cut."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} characters cut)"


class _Said:
    """A value that has been asked for its words already."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a foreign __repr__ raises
        return f"<{type(value).__name__} that does not say what it is>"


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, *_PLAIN)):
        return value
    if depth < _DEPTH and isinstance(value, dict):
        facts = cast("dict[Any, Any]", value)
        return {_key(name): _plain(one, depth + 1) for name, one in facts.items()}
    if depth < _DEPTH and isinstance(value, list | tuple):
        return [_plain(one, depth + 1) for one in cast("list[Any]", value)]
    return cut(words(value), LONGEST_TEXT) if depth < _DEPTH else "…"


def _key(name: Any) -> str:
    return name if isinstance(name, str) else words(name)


def _shortened(event: Any) -> Any:
    facts = {name: one if isinstance(one, _PLAIN) else cut(words(one), 1000) for name, one in _plain(event).items()}
    return dict(list(facts.items())[:50])
