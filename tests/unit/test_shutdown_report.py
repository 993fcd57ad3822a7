"""A shutdown's report in a notebook is one short line."""

from __future__ import annotations

from duodaq.model import ComponentReport, Outcome, ShutdownReport

CLEAN = ComponentReport("v2.dmm", Outcome.CLEAN)


def test_a_clean_shutdown_says_so_in_a_few_words() -> None:
    assert repr(ShutdownReport((CLEAN,) * 20, 0.0123, 10.0)) == "<shutdown in 0.01 s: clean>"


def test_what_did_not_end_clean_is_named() -> None:
    report = ShutdownReport((CLEAN, ComponentReport("v4.stage", Outcome.FORCED, "it hung")), 2.0, 10.0)
    assert repr(report) == str(report) == "<shutdown in 2.00 s: v4.stage forced>"
