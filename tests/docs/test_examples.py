"""No example is forgotten: each is named by a test, which is the one that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
TESTS = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path != Path(__file__)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_named_by_a_test(example: Path) -> None:
    assert [path for path in TESTS if example.name in path.read_text(encoding="utf-8")]
