"""What a notebook shows at the end of a cell: HTML of facts and tables, in the notebook's own colours.

Rules for whoever edits this:

* Every word comes from somebody else, and is escaped: an instrument may call itself ``<script>``.
* Colours are the notebook's, so that it is read in light and in dark. What is wrong is bold.
* It is small whatever it shows: long words are cut, and long tables have a gap in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

LONGEST = 200
MOST_ROWS = 50
_LEFT = 'style="text-align:left"'
_GAP = "⋮"


def words(value: Any) -> str:
    """A value as text: numbers short, what is absent as a dash, and what is long cut."""
    if value is None:
        return "–"
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    text = text.encode(errors="replace").decode()  # the name of a file may hold what no page can
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def page(title: str, facts: Iterable[str] = (), *tables: str, wrong: Iterable[str] = ()) -> str:
    """A title, a line for each fact, those that are `wrong` first, and tables."""
    lines = [f"<b>{escape(words(title))}</b>"]
    lines += [f"<b>{escape(words(one))}</b>" for one in wrong]
    lines += [escape(words(one)) for one in facts]
    return f"<div>{'<br>'.join(lines)}{''.join(tables)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int = MOST_ROWS) -> str:
    """A table; of one with more than `most` rows the first and the last. Empty if there are none."""
    lines = list(rows)
    if not lines:
        return ""
    if len(lines) > most:
        lines = [*lines[: most - most // 2], [_GAP] * len(head), *lines[-(most // 2) :]]
    top = "".join(f"<th {_LEFT}>{escape(words(name))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: Any) -> str:
    return f"<td {_LEFT}>{escape(words(cell))}</td>"
