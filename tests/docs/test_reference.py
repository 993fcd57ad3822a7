"""What the reference says of the code is what the code says: `make reference` would change nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


WRITERS = DOCS / "generate"


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The writers of the reference, which are no package: their bare names are anybody's again afterwards."""
    monkeypatch.syspath_prepend(str(WRITERS))
    yield importlib.import_module("regions")
    for file in WRITERS.glob("*.py"):
        sys.modules.pop(file.stem, None)


def generated(regions: Any) -> list[Path]:
    return [path for path in sorted(DOCS.rglob("*.md")) if regions.REGION.search(path.read_text(encoding="utf-8"))]


def test_generated_parts_are_what_the_code_gives(regions: Any) -> None:
    stale = {
        str(path.relative_to(ROOT))
        for path in generated(regions)
        if regions.rewritten(path.read_text(encoding="utf-8")) != path.read_text(encoding="utf-8")
    }
    assert stale == set(), "run `make reference`, and commit what it wrote"


def test_every_writer_has_a_place(regions: Any) -> None:
    texts = [path.read_text(encoding="utf-8") for path in generated(regions)]
    used = {match["words"].split()[0] for text in texts for match in regions.REGION.finditer(text)}
    assert used == set(regions.WRITERS)


def test_a_command_without_a_region_is_written_with_the_others(regions: Any) -> None:
    text = "<!-- generated: command demo -->\n<!-- end -->\n<!-- generated: commands -->\n<!-- end -->\n"
    written = regions.rewritten(text)
    assert written.count("## `duodaq demo`") == 1
    assert "## `duodaq status`" in written


def test_a_table_without_a_region_is_written_with_the_others(regions: Any) -> None:
    text = "<!-- generated: keys lab -->\n<!-- end -->\n<!-- generated: tables -->\n<!-- end -->\n"
    written = regions.rewritten(text)
    assert written.count("| `shutdown` | duration |") == 1
    assert {"## `[web]`", "## `[ports.NAME.serial]`", "## `[runtimes.v4]`"} <= set(written.splitlines())


def test_every_key_of_a_lab_file_and_every_option_has_words() -> None:
    texts = [(DOCS / "reference" / name).read_text(encoding="utf-8") for name in ("lab-file.md", "command-line.md")]
    rows = [line for text in texts for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_writing_twice_changes_nothing(regions: Any) -> None:
    text = "A\n\n<!-- generated: errors -->\n<!-- end -->\n\nB\n"
    once = regions.rewritten(text)
    assert once.startswith("A\n\n<!-- generated: errors -->\n\n```text\n")
    assert once.endswith("\n\n<!-- end -->\n\nB\n")
    assert regions.rewritten(once) == once
