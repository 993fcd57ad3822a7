"""The four pages of a run: each as HTML and as Markdown, and beside them what they are made from."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from duodaq.errors import ConfigError
from duodaq.verify._deliverables_page import deliverables
from duodaq.verify._html import html
from duodaq.verify._index_page import test_index
from duodaq.verify._markdown import markdown
from duodaq.verify._report_page import test_report
from duodaq.verify._results import Results, load_results
from duodaq.verify._summary_page import summary_page

RESULTS_FILE = "results.json"


def pages_of(results: Results) -> dict[str, str]:
    """The text of every page, by the name of its file."""
    pages = (test_report(results), summary_page(results), test_index(results), deliverables(results))
    titles = {page.name: page.title for page in pages}
    made: dict[str, str] = {}
    for page in pages:
        made[f"{page.name}.html"] = html(page, titles)
        made[f"{page.name}.md"] = markdown(page, titles)
    return made


def write_pages(results: Results, folder: Path) -> list[Path]:
    """Write the pages and the results into a folder, which is made if it is not there; the files.

    Raises:
        ConfigError: Nothing can be written there.
    """
    kept = msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"
    files = {**{name: text.encode() for name, text in pages_of(results).items()}, RESULTS_FILE: kept}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            whole = folder / f".{name}"
            whole.write_bytes(content)
            os.replace(whole, folder / name)
    except OSError as error:
        raise ConfigError(f"the pages cannot be written: {error}", key="--out", file=folder) from error
    return [folder / name for name in files]


def read_pages(folder: Path) -> tuple[Results, list[str]]:
    """The results that lie in a folder, and which of its pages are not what these results give.

    Raises:
        ConfigError: There are no results.
    """
    results = load_results(folder / RESULTS_FILE)
    wrong = [name for name, text in pages_of(results).items() if _text(folder / name) != text]
    return results, wrong


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
