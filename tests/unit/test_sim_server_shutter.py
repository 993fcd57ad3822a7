"""The home-made shutter controller moves the table's shutter and nothing else."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable, make_simulator


@pytest.fixture
def table() -> LocalTable:
    return LocalTable(0)


def sent(controller, text: bytes, pending: int = 0) -> list[bytes]:
    return [reply.data for reply in controller.feed(text, 1.0, 0, pending)]


def test_it_opens_and_closes_the_shutter_and_says_how_it_stands(table: LocalTable):
    controller = make_simulator("shutter", table=table)
    assert sent(controller, b"SHUT 1\n") == []
    assert table.state().shutter_open
    assert sent(controller, b"shut?\r\n") == [b"1\n"]
    assert sent(controller, b"SHUT 0\n") == []
    assert not table.state().shutter_open
    assert sent(controller, b"SHUT?\n") == [b"0\n"]
    assert controller.report()["produced"] == {"shutter": 2}


def test_a_half_written_command_moves_nothing_until_its_end(table: LocalTable):
    controller = make_simulator("shutter", table=table)
    sent(controller, b"SHU")
    sent(controller, b"T 1")
    assert not table.state().shutter_open
    sent(controller, b"\n")
    assert table.state().shutter_open


def test_losing_power_closes_it(table: LocalTable):
    controller = make_simulator("shutter", table=table)
    sent(controller, b"SHUT 1\n")
    controller.power_cycle(2.0)
    assert not table.state().shutter_open


def test_unknown_words_are_ignored_in_silence(table: LocalTable):
    controller = make_simulator("shutter", table=table)
    assert sent(controller, b"SHUT 2\nOPEN\n") == []
    assert not table.state().shutter_open
    assert sent(controller, b"*IDN?\n") == [b"Workshop,TTL shutter,7,1.2\n"]


def test_interleaving_is_noticed(table: LocalTable):
    controller = make_simulator("shutter", table=table)
    sent(controller, b"SHUT?\n")
    sent(controller, b"SHUT?\n", pending=2)
    sent(controller, b"SHUT?\nSHUT?\n")
    assert controller.report()["interleavings"] == 2


def test_a_simulator_that_does_not_exist_is_refused_with_what_there_is(table: LocalTable):
    with pytest.raises(ValueError, match="ell14, esp300, maitai, newport1830c"):
        make_simulator("laser-cannon", table=table)
