"""What the demonstration says at its end of what its devices sent: all is accounted for, or it says what is not."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from duodaq.cli.demo._ledger import FailedReadings, _beside
from duodaq.telemetry import get_logger

LEDGERS = {"v2": {"produced": {"meter": {"meter.power": 97}}}, "v4": {"produced": {}}}


@pytest.mark.parametrize(("sent", "is_right"), [(96, False), (97, True), (99, True), (100, False)])
def test_a_reading_that_failed_is_known_whether_its_device_sent_it_or_not(sent: int, is_right: bool) -> None:
    table, problems = _beside({"meter.power": ("a meter", sent)}, LEDGERS, 0, Counter({"meter.power": 2}))
    assert [str(column.header) for column in table.columns][-1] == "failed"
    assert [*table.columns[-1].cells] == ["2"]
    assert (problems == []) == is_right
    table, problems = _beside({"meter.power": ("a meter", sent)}, LEDGERS, 0, Counter())
    assert [str(column.header) for column in table.columns][-1] == "known lost"
    assert (problems == []) == (sent == 97)


def test_failed_readings_are_counted_as_the_lab_says_them() -> None:
    with FailedReadings() as failed:
        for channel in ("power", "power", "dark"):
            get_logger("v2").warning("reading failed", instrument="meter", channel=channel)
        get_logger("v2").warning("something else", instrument="meter", channel="power")
    get_logger("v2").warning("reading failed", instrument="meter", channel="power")
    assert failed.counts == {"meter.power": 2, "meter.dark": 1}
    assert failed not in logging.getLogger("duodaq").handlers
