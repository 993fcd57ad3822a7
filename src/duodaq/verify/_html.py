from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

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

_KINDS = {"passed": "good", "within": "good", "failed": "bad", "beyond": "warn"}


def html(page: Page, titles: dict[str, str]) -> str:
    """The page as one file of HTML that needs no other; `titles` names all pages, by the name of each."""
    template = Template(resources.files("duodaq.verify").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(page.title),
        pages="\n".join(_tab(name, title, here=name == page.name) for name, title in titles.items()),
        verdict=_inline(page.verdict),
        kind=_KINDS.get(page.verdict.text, "idle"),
        sentence=escape(page.sentence),
        content="\n".join(_block(block) for block in page.blocks),
    )


def _tab(name: str, title: str, *, here: bool) -> str:
    return f'<a href="{escape(name)}.html"{" aria-current=page" if here else ""}>{escape(title)}</a>'


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f'<h2 id="{_slug(block.text)}">{escape(block.text)}</h2>'
        case Paragraph():
            return f"<p>{_text(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Commands():
            return f"<pre><code>{escape(chr(10).join(f'$ {line}' for line in block.lines))}</code></pre>"
        case Tiles():
            return f'<dl class="tiles">{"".join(_tile(*item) for item in block.items)}</dl>'
        case Table():
            return _table(block)


def _tile(what: str, how_much: Text, word: Text) -> str:
    return f"<div><dt>{escape(what)}</dt><dd>{_text(how_much)}</dd><dd class=word>{_text(word)}</dd></div>"


def _table(table: Table) -> str:
    head = "".join(f"<th{_side(table, n)} scope=col>{escape(name)}</th>" for n, name in enumerate(table.columns))
    body = "".join(f"<tr>{_row(table, number, row)}</tr>" for number, row in enumerate(table.rows))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(table: Table, number: int, row: Sequence[Text]) -> str:
    return "".join(f"<td{_side(table, n)}{_bar(table, number, n)}>{_text(cell)}</td>" for n, cell in enumerate(row))


def _side(table: Table, column: int) -> str:
    return " class=number" if column in table.numbers else ""


def _bar(table: Table, row: int, column: int) -> str:
    share = table.bars.get((row, column))
    return "" if share is None else f' style="--bar:{100 * share:.1f}%"'


def _text(text: Text) -> str:
    return "".join(_inline(part) for part in parts(text))


def _inline(part: Inline) -> str:
    match part:
        case str():
            return escape(part)
        case Code():
            return f"<code>{escape(part.text)}</code>"
        case Link():
            return f'<a href="{escape(part.page)}.html">{escape(part.text)}</a>'
        case State():
            return f'<span class="state {_KINDS.get(part.text, "idle")}">{escape(part.text)}</span>'


def _slug(text: str) -> str:
    return "-".join(escape(text).lower().split())
