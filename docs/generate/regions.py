"""Regions of a document that are written by code, and who writes each."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parents[1]
REGION = re.compile(r"<!-- generated: (?P<words>[^\n]*?) -->\n.*?<!-- end -->", re.DOTALL)

WRITERS = {
    "command": "commands:one",
    "commands": "commands:others",
    "errors": "error_tree:tree",
    "error-table": "error_tree:table",
    "keys": "lab_keys:one",
    "tables": "lab_keys:others",
    "metrics": "metric_table:table",
    "queues": "queue_table:table",
    "routes": "routes:one",
    "other-routes": "routes:others",
    "bodies": "routes:bodies",
    "schemas": "schema_tables:tables",
}
"""Modules and functions. Each takes the words behind its name, and the words of every region of the same writer in the
document, and returns Markdown. One that cannot be loaded keeps no other from being written.
"""
COVERS = {"commands": "command", "tables": "keys", "other-routes": "routes"}
"""Writers that write whatever regions of another leave out, so that nothing new is missing."""


def rewritten(text: str) -> str:
    """The text of a document with every region written anew."""
    asked = [match["words"].split() for match in REGION.finditer(text)]

    def write(match: re.Match[str]) -> str:
        name, *words = match["words"].split()
        like = [rest for other, *rest in asked if other == COVERS.get(name, name)]
        written = _written(name, words, like).strip()
        return "\n\n".join(part for part in (f"<!-- generated: {match['words']} -->", written, "<!-- end -->") if part)

    return REGION.sub(write, text)


def _written(name: str, words: list[str], like: list[list[str]]) -> str:
    module, _, function = WRITERS[name].partition(":")
    return getattr(import_module(module), function)(words, like)
