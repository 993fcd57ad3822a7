"""What a page is made of. A page is written once, as these values; HTML and Markdown are two ways to write it down.

So both have the same content: what only one of them could show is not in it. (The bars behind durations in HTML are
drawn from the numbers that stand in front of them.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Code:
    """A name, a command, a number as the machine has it."""

    text: str


@dataclass(frozen=True)
class Link:
    """To another page, by its name."""

    text: str
    page: str


@dataclass(frozen=True)
class State:
    """Passed, failed, not run; or within or beyond a goal."""

    text: str


Inline: TypeAlias = "str | Code | Link | State"
Text: TypeAlias = "Inline | tuple[Inline, ...]"


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: Text


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Tiles:
    """The few numbers that a reader came for: what, how much, and a word about it."""

    items: tuple[tuple[str, Text, Text], ...]


@dataclass(frozen=True)
class Table:
    """Rows under columns; those of `numbers` stand to the right. `bars` gives the length of a bar, of 1, in a cell."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    numbers: frozenset[int] = frozenset()
    bars: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: tuple[str, ...]


Block: TypeAlias = "Heading | Paragraph | Bullets | Tiles | Table | Commands"


@dataclass(frozen=True)
class Page:
    """One page: its file's name without the ending, its title, the verdict in a word and in a sentence, its content."""

    name: str
    title: str
    verdict: State
    sentence: str
    blocks: tuple[Block, ...]


def parts(text: Text) -> Sequence[Inline]:
    """The pieces of a text, in order."""
    return text if isinstance(text, tuple) else (text,)
