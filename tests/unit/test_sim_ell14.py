"""The Elliptec simulator is true to the rotators: packets by length, late replies, status codes, the button."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable, make_simulator
from duodaq.sim.ell14 import TABLE_AXIS, make


class Bench:
    """A line of rotators, and a clock of its own, far ahead of the machine's."""

    def __init__(self, model: str = "3xELL14") -> None:
        self.table = LocalTable(0)
        self.bus = make(model=model, table=self.table, seed=0)
        self.now_s = 1e9
        self.bus.open_session(0, self.now_s)

    def send(self, text: str, *, pending: int = 0) -> str:
        replies = self.bus.feed(text.encode(), self.now_s, 0, pending)
        return b"".join(reply.data for reply in replies).decode()

    def ask(self, text: str) -> str:
        said = self.send(text)
        assert said.endswith("\r\n")
        return said.removesuffix("\r\n")

    def wait(self, duration_s: float) -> str:
        said, end_s = b"", self.now_s + duration_s
        while (at_s := self.bus.due_at_s()) is not None and at_s <= end_s:
            self.now_s = max(self.now_s, at_s)
            said += b"".join(reply.data for reply in self.bus.due(self.now_s))
        self.now_s = end_s
        return said.decode()

    def angle(self, address: int = 0) -> float:
        return self.table.motion(TABLE_AXIS + address).at(self.now_s)[0]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("end", ["", "\r", "\n", "\r\n"])
def test_a_command_needs_no_end_and_any_is_skipped(bench: Bench, end: str):
    assert bench.ask(f"0in{end}") == "0IN0E1140051020231701016800023000"
    assert bench.ask(f"1gs{end}") == "1GS00"


def test_line_ends_within_a_packet_are_nothing(bench: Bench):
    assert bench.send("0\rg\n") == ""
    assert bench.ask("p") == "0PO00000000"


def test_several_packets_in_one_piece_are_told_apart_by_their_length(bench: Bench):
    assert bench.send("0gs1gp2gv") == "0GS00\r\n1PO00000000\r\n2GV64\r\n"


def test_an_address_that_nobody_has_is_silence(bench: Bench):
    assert bench.send("3gs") == ""
    assert bench.send("Fma00001000") == ""
    assert bench.ask("0gs") == "0GS00"


def test_a_move_is_answered_when_it_ends_and_others_are_answered_meanwhile(bench: Bench):
    assert bench.send("0ma00008C00") == ""
    assert bench.send("0gs1gs") == "0GS09\r\n1GS00\r\n"
    assert bench.wait(0.1) == ""
    assert 0 < bench.angle() < 90
    assert bench.wait(2.0) == "0PO00008C00\r\n"
    assert bench.angle() == pytest.approx(90)


def test_three_move_at_once_and_each_answers_for_itself(bench: Bench):
    bench.send("0ma000046001ma00008C002ma00002300")
    assert bench.wait(3.0) == "2PO00002300\r\n0PO00004600\r\n1PO00008C00\r\n"


def test_a_relative_move_goes_either_way(bench: Bench):
    bench.send("0mrFFFFDD00")
    assert bench.wait(2.0) == "0POFFFFDD00\r\n"
    assert bench.angle() == pytest.approx(-22.5)


def test_a_command_that_moves_is_refused_while_it_turns(bench: Bench):
    bench.send("0ma00023000")
    assert bench.ask("0ma00000000") == "0GS09"
    assert bench.ask("0sv32") == "0GS09"


@pytest.mark.parametrize(("text", "angle"), [("0ho0", 0), ("0ho1", 360), ("0ho", 0)])
def test_home_is_searched_in_either_direction_and_becomes_zero(bench: Bench, text: str, angle: float):
    bench.send("0ma00008C00")
    bench.wait(2.0)
    assert bench.send(text) == ""
    assert bench.wait(3.0) == "0PO00000000\r\n"
    assert bench.angle() == pytest.approx(angle)


def test_home_without_a_direction_waits_for_one_only_a_moment(bench: Bench):
    assert bench.send("0ho") == ""
    assert bench.send("2gs") == "2GS00\r\n"
    bench.wait(2.0)
    assert bench.send("0ho") == ""
    assert "0PO" in bench.wait(1.0)


def test_a_packet_that_comes_to_no_end_is_given_up(bench: Bench):
    assert bench.send("0ma0000") == ""
    assert bench.wait(1.9) == ""
    assert bench.wait(0.2) == "0GS01\r\n"
    assert bench.ask("0gp") == "0PO00000000"


def test_digits_that_are_none_break_a_packet(bench: Bench):
    assert bench.send("0ma00xx0gp") == "0GS01\r\n0PO00000000\r\n"


def test_an_unknown_command_is_status_3(bench: Bench):
    assert bench.ask("0zz") == "0GS03"


def test_a_jam_is_told_once(bench: Bench):
    bench.bus.rotators[0].jammed = True
    bench.send("0ma00008C00")
    assert bench.wait(2.0) == "0GS02\r\n"
    assert bench.ask("0gs") == "0GS02"
    assert bench.ask("0gs") == "0GS00"
    assert bench.angle() == 0


def test_a_stop_is_answered_and_the_move_tells_where_it_ended(bench: Bench):
    bench.send("0ma00023000")
    bench.wait(0.3)
    assert bench.ask("0st") == "0GS00"
    said = bench.wait(1.0)
    assert said.startswith("0PO000")
    assert 0 < int(said[3:11], 16) < 0x23000
    assert bench.angle() < 200


def test_velocity_step_and_offset_are_kept(bench: Bench):
    assert bench.send("0sv320sj000001000so00000200") == "0GS00\r\n" * 3
    assert bench.send("0gv0gj0go") == "0GV32\r\n0GJ00000100\r\n0HO00000200\r\n"
    assert bench.ask("0sv10") == "0GS04"
    bench.send("0fw")
    assert bench.wait(1.0) == "0PO00000100\r\n"
    bench.send("0bw")
    assert bench.wait(1.0) == "0PO00000000\r\n"


def test_a_step_of_zero_turns_until_it_is_stopped(bench: Bench):
    bench.send("0sj000000000fw")
    assert bench.wait(3.0) == ""
    assert bench.ask("0gs") == "0GS09"
    bench.send("0st")
    assert bench.wait(1.0).startswith("0PO")


def test_a_changed_address_answers_and_is_forgotten_unless_saved(bench: Bench):
    assert bench.ask("2ca5") == "5GS00"
    assert bench.send("2gs") == ""
    bench.bus.power_cycle(bench.now_s)
    assert bench.ask("2gs") == "2GS00"
    assert bench.send("2ca55us") == "5GS00\r\n5GS00\r\n"
    bench.bus.power_cycle(bench.now_s)
    assert bench.ask("5gs") == "5GS00"


def test_a_group_address_makes_several_move_once(bench: Bench):
    assert bench.ask("1ga0") == "1GS00"
    bench.send("0ma00002300")
    assert sorted(bench.wait(2.0).split()) == ["0PO00002300", "1PO00002300"]
    bench.send("0ma00000000")
    assert bench.wait(2.0) == "0PO00000000\r\n"


def test_an_isolated_rotator_says_so_until_its_time_is_over(bench: Bench):
    assert bench.ask("0is01") == "0GS00"
    assert bench.ask("0ma00001000") == "0GS05"
    bench.wait(61.0)
    assert bench.ask("0gp") == "0PO00000000"


def test_the_button_makes_it_speak_unasked(bench: Bench):
    rotator = bench.bus.rotators[1]
    rotator.press(bench.now_s)
    assert bench.wait(1.0).startswith("1BO")


def test_a_search_is_slow_and_says_ok(bench: Bench):
    assert bench.send("0s1") == ""
    assert bench.wait(2.0) == "0GS00\r\n"
    assert len(bench.ask("0i1")) == 25


def test_an_ell8_has_other_pulses():
    assert Bench("2xELL14+ELL8").ask("2in").endswith("016800040000")


def test_where_it_stands_when_power_comes_is_zero_until_it_is_homed(bench: Bench):
    bench.send("0ma00008C00")
    bench.wait(2.0)
    bench.bus.power_cycle(bench.now_s)
    assert bench.ask("0gp") == "0PO00000000"
    bench.send("0ho0")
    bench.wait(2.0)
    bench.send("0ma00008C00")
    bench.wait(2.0)
    assert bench.angle() == pytest.approx(90)


def test_who_does_not_wait_for_an_answer_is_noticed_and_a_late_one_is_no_answer(bench: Bench):
    bench.ask("0gs")
    bench.send("0gp", pending=7)
    assert bench.bus.tally.interleavings == 1
    bench.send("0ma00001000")
    bench.wait(2.0)
    bench.send("1gs", pending=13)
    assert bench.bus.tally.interleavings == 1


def test_a_wrong_model_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="3xELL14"):
        make_simulator("ell14", model="ELL20", table=LocalTable(0))
