"""One row for each component of a shutdown, however many workers had a part of it."""

from __future__ import annotations

from duodaq.dual._side import merged
from duodaq.model import ComponentReport, Outcome


def test_the_rows_of_one_component_become_one_that_says_the_worst_of_each() -> None:
    rows = [
        ComponentReport("v2.dmm", Outcome.CLEAN, "", 0.1),
        ComponentReport("v2", Outcome.CLEAN, "", 0.2),
        ComponentReport("v2.stage", Outcome.LEAKED, "it hung", 0.3),
        ComponentReport("v2", Outcome.LEAKED, "v2.stage", 0.4),
        ComponentReport("v2", Outcome.FORCED, "v2.lamp", 0.1),
    ]
    assert merged(rows) == (
        rows[0],
        ComponentReport("v2", Outcome.LEAKED, "v2.stage; v2.lamp", 0.4),
        rows[2],
    )


def test_rows_of_their_own_stay_as_they_are() -> None:
    rows = (ComponentReport("v2", Outcome.CLEAN, "", 0.2), ComponentReport("v4", Outcome.FORCED, "why", 0.1))
    assert merged(rows) == rows
