"""Tables and words of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column in which nothing stands is left out."""
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    used = [n for n in range(len(head)) if any(row[n] for row in lines)]
    shown = [[head[n] for n in used], ["---"] * len(used), *([cell(row[n]) for n in used] for row in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in shown)


def cell(text: str) -> str:
    """Text in one line, which ends no cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def code(value: object) -> str:
    return f"`{value}`"


def sentence(text: str) -> str:
    """Text without the point at its end, as words stand in a table."""
    text = " ".join(text.split())
    return text.removesuffix(".") if text.count(". ") == 0 and not text.endswith("…") else text


def paragraphs(text: str) -> str:
    """A docstring's paragraphs, each in a line that Markdown wraps, its ``code`` as Markdown has it."""
    parts = [" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n")]
    return "\n\n".join(part.replace("``", "`") for part in parts if part)
