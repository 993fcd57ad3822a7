"""Sentences about keys and values, as one says them to somebody who wrote a lab file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from duodaq.units import unit_meant


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def choose(word: str, known: Iterable[str], what: str) -> str:
    """A remedy for a word that is not among the known ones: ``Did you mean "x"? The ports here: x, y``."""
    names = sorted(known)
    meant = nearest(word, names)
    question = f'Did you mean "{meant}"? ' if meant else ""
    return f"{question}{what}: {', '.join(names) if names else 'none'}"


def known_unit(value: str) -> str:
    """The unit as it is; what is a misspelling of one is refused, a unit of a lab's own is not."""
    if meant := unit_meant(value):
        raise ValueError(f'"{value}" is no unit; did you mean "{meant}"?')
    return value


def kind(value: Any) -> str:
    """What a value is, in TOML's words, with the value where it is short."""
    shown = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, str | list) else repr(value)
    with_value = f" {shown}" if len(shown) <= 40 else ""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string{with_value}"
        case int() | float():
            return f"the number{with_value}"
        case list():
            return f"the list{with_value}"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}{with_value}"


def and_list(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *front, end = words
    return f"{', '.join(front)} {last} {end}" if front else end
