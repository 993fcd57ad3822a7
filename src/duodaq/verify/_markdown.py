from __future__ import annotations

import re
from collections.abc import Sequence

from duodaq.verify._page import (
    Block,
    Bullets,
    Code,
    Commands,
    Heading,
    Inline,
    Link,
    Page,
    Paragraph,
    State,
    Table,
    Text,
    Tiles,
    parts,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")
_MARKS = {"passed": "passed", "failed": "**failed**", "not run": "*not run*"}


def markdown(page: Page, titles: dict[str, str]) -> str:
    """The page as Markdown; `titles` names all pages, by the name of each."""
    others = " · ".join(
        f"**{title}**" if name == page.name else f"[{title}]({name}.md)" for name, title in titles.items()
    )
    head = [f"# {page.title}", others, f"{_inline(page.verdict)} — {_plain(page.sentence)}"]
    return "\n\n".join([*head, *(_block(block) for block in page.blocks)]) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"## {_plain(block.text)}"
        case Paragraph():
            return _text(block.text)
        case Bullets():
            return "\n".join(f"- {_text(item)}" for item in block.items)
        case Commands():
            return "\n".join(["```console", *(f"$ {line}" for line in block.lines), "```"])
        case Tiles():
            return _table(("what", "how much", ""), block.items, frozenset({1}))
        case Table():
            return _table(block.columns, block.rows, block.numbers)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Text]], numbers: frozenset[int]) -> str:
    rules = ["---:" if number in numbers else "---" for number in range(len(columns))]
    lines = [[_plain(column) for column in columns], rules, *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: Text) -> str:
    return "".join(_inline(part) for part in parts(text))


def _inline(part: Inline) -> str:
    match part:
        case str():
            return _plain(part)
        case Code():
            text = " ".join(part.text.split()).replace("|", "\\|")
            return f"`` {text} ``" if "`" in text else f"`{text}`"
        case Link():
            return f"[{_plain(part.text)}]({part.page}.md)"
        case State():
            return _MARKS.get(part.text, part.text)


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split(" ")).replace("\n", " "))
