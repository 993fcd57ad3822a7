"""Where commands say what they have to say: to a person at a terminal, into a pipe, to a program as JSON."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import signal
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from rich.console import Console, ConsoleDimensions
from rich.segment import Segment

NARROWEST = 80
"""A terminal that is narrower breaks lines by itself: a table cut to its width says nothing."""
WIDE = 1000
"""Where no terminal says how wide it is, a line is as long as what it says."""
OTHER_LETTERS = "letters-that-can-be-written"
_PADDING = re.compile(r"[ ]+(?=\n)")
_INSTEAD = {
    "·": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "−": "-",
    "…": "...",
    "’": "'",
    "→": "->",
    "←": "<-",
    "±": "+-",
    "×": "x",
    "µ": "u",
    "μ": "u",
    "²": "2",
    "³": "3",
    "Ω": "Ohm",
    "✓": "+",
    "✗": "X",
    "↻": "@",
}
"""What is written for a letter that the encoding of a stream has not; for others, their number."""


class Said(Console):
    """A console for what is said once; a picture that is drawn anew in its place is for a `Console` as it is."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False)

    @property
    def size(self) -> ConsoleDimensions:
        """As wide as the terminal, or ``COLUMNS``, and never narrower than words need."""
        found = super().size
        is_said = self.is_terminal or os.environ.get("COLUMNS", "").isdigit()
        return found._replace(width=max(found.width, NARROWEST) if is_said else WIDE)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # pyright: ignore[reportOptionalCall] - it has one

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else _PADDING.sub("", text)


@contextmanager
def ended_by_signal() -> Generator[threading.Event]:
    """Set by Ctrl-C or SIGTERM, from before what they end has begun: a signal in between would leave it going on."""
    ended = threading.Event()

    def end(number: int, frame: object) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_it_is(out: Console) -> Console:
    """The same place, as narrow as it really is: for a picture that is drawn anew, whose lines must be counted."""
    return Console(file=out.file, highlight=False) if isinstance(out, Said) else out


def say_json(out: Console, value: Any) -> None:
    """Print a value for a program: JSON in any encoding, and nothing in it that JSON has not."""
    out.print_json(_text(out, value), ensure_ascii=not _has_all_letters(out))


def say_json_line(out: Console, value: Any) -> None:
    """The same in one line, at once: another one may follow."""
    out.out(_text(out, value), highlight=False)
    out.file.flush()


def _text(out: Console, value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=not _has_all_letters(out), allow_nan=False, default=str)


def _has_all_letters(out: Console) -> bool:
    return out.encoding.startswith("utf")


def _finite(value: Any) -> Any:
    """The same, with null for what is no number: JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in cast("list[Any]", value)]
    return value


def _instead(error: UnicodeError) -> tuple[str | bytes, int]:
    """A letter that looks like it, for one that the encoding of a stream has not; or else its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    escaped = (_INSTEAD.get(one) or one.encode("ascii", "backslashreplace").decode("ascii") for one in missing)
    return "".join(escaped), error.end


codecs.register_error(OTHER_LETTERS, _instead)
