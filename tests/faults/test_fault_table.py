"""The table of faults is whole: every test of this folder is in it, and every line and figure that it names exists."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_table import FAULTS, ITSELF, LOGGED, PEACE

from duodaq.telemetry import METRICS

FOLDER = Path(__file__).parent
SOURCE = FOLDER.parents[1] / "src" / "duodaq"
pytestmark = pytest.mark.fault(by=PEACE)


def all_of_the_folder() -> Iterator[tuple[str, list[pytest.Mark]]]:
    """Each test function of the folder, with its marks."""
    for file in sorted(FOLDER.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{file.stem}")
        of_all: Any = getattr(module, "pytestmark", [])
        for name, test in vars(module).items():
            if name.startswith("test_") and callable(test) and test.__module__ == module.__name__:
                marks = [*(of_all if isinstance(of_all, list) else [of_all]), *getattr(test, "pytestmark", [])]
                yield f"{file.name}::{name}", [getattr(mark, "mark", mark) for mark in marks]


def test_every_test_of_the_folder_names_its_faults_or_says_why_it_has_none() -> None:
    marked = {name: [mark for mark in marks if mark.name == "fault"] for name, marks in all_of_the_folder()}
    assert len(marked) > 70
    assert [name for name, marks in marked.items() if len(marks) != 1] == []
    assert {fault for marks in marked.values() for mark in marks for fault in mark.args} == FAULTS.keys()


def test_every_fault_has_been_seen_by_a_test_that_looks_for_both() -> None:
    marks = [mark for _, marks in all_of_the_folder() for mark in marks if mark.name == "fault"]
    looked_for = {name for mark in marks for name in mark.args if mark.kwargs.get("by", ITSELF) == ITSELF}
    assert FAULTS.keys() - looked_for == set()


def test_every_sentence_is_logged_somewhere_and_every_figure_is_a_metric() -> None:
    logged = set[str]()
    for file in SOURCE.rglob("*.py"):
        logged |= set(re.findall(r'(?:log|LOG|say)(?:\.\w+)?\(\s*"([^"]+)"', file.read_text(encoding="utf-8")))
    known = METRICS.keys()
    for name, told in FAULTS.items():
        assert told.sentences, name
        assert told.figures, name
        assert set(told.figures) <= known, name
        assert set(told.sentences) - logged - {"alarm raised"} == set(), name  # of an alarm its state is put together
        if LOGGED not in told.figures:
            assert all(METRICS[figure].labels or METRICS[figure].kind == "counter" for figure in told.figures), name
