"""The ESP300 simulator is true to the controller: grammar, errors, motion, waits, break-in. Time is the test's own."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable
from duodaq.sim.esp300 import make

SETTINGS = "VA AC AG AE JK VU AU VB OH JH JW FE SL SR SU FR QM KP TJ QI QV"


class Bench:
    """One controller and a clock that the test turns."""

    def __init__(self, *, paced: bool = False) -> None:
        self.table = LocalTable(0)
        self.controller = make(model=None, table=self.table, seed=0)
        self.controller.paced = paced
        self.now_s = 1000.0
        self.controller.open_session(0, self.now_s)

    def send(self, text: str, *, pending: int = 0) -> list[str]:
        return self._texts(self.controller.feed(text.encode() + b"\r", self.now_s, 0, pending))

    def ask(self, text: str) -> str:
        (reply,) = self.send(text)
        return reply

    def wait(self, seconds: float) -> list[str]:
        """Let time pass, calling the controller whenever it wants to be called."""
        until_s = self.now_s + seconds
        replies = []
        while (due_s := self.controller.due_at_s()) is not None and due_s <= until_s:
            self.now_s = max(due_s, self.now_s)
            replies += self._texts(self.controller.due(self.now_s))
        self.now_s = until_s
        return replies

    def errors(self) -> list[int]:
        codes = []
        while code := int(self.ask("TE?")):
            codes.append(code)
        return codes

    @staticmethod
    def _texts(replies) -> list[str]:
        assert all(reply.data.endswith(b"\r\n") for reply in replies)
        return [reply.data[:-2].decode() for reply in replies]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def powered(bench: Bench) -> Bench:
    bench.send("1MO;2MO;3MO")
    return bench


# grammar


@pytest.mark.parametrize("text", ["1TP", "1TP?", "01TP", "1tp", " 1 T P ", "1TP ; ", "; 1TP"])
def test_every_way_to_ask_for_a_position_is_understood(bench: Bench, text: str):
    assert bench.send(text) == ["0"]
    assert bench.errors() == []


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_line_may_end_with_carriage_return_or_line_feed_or_both(bench: Bench, end: bytes):
    replies = bench.controller.feed(b"1TP" + end + b"2MD" + end, bench.now_s)
    assert [reply.data for reply in replies] == [b"0\r\n", b"1\r\n"]


def test_several_queries_on_a_line_get_one_reply_line_each_in_order(bench: Bench):
    assert bench.send("1TP;2MD? ; 1SN?") == ["0", "1", "2"]
    assert bench.controller.tally.interleavings == 0


def test_setters_answer_nothing_and_a_question_mark_reads_them_back(bench: Bench):
    assert bench.send("1VA12.5") == []
    assert bench.ask("1VA?") == "12.5"


@pytest.mark.parametrize("word", SETTINGS.split())
def test_settings_are_readable(bench: Bench, word: str):
    float(bench.ask(f"1{word}?"))
    assert bench.errors() == []


@pytest.mark.parametrize("word", ["ZA", "ZB", "ZC", "ZE", "ZF", "ZH", "ZS"])
def test_bit_fields_are_hexadecimal_with_an_h(bench: Bench, word: str):
    bench.send(f"1{word}1AH")
    assert bench.ask(f"1{word}?") == "1AH"


def test_the_firmware_string_answers_ve_and_idn(bench: Bench):
    assert bench.ask("VE?") == bench.ask("VE") == bench.ask("*IDN?") == "ESP300 Version 3.04 07/27/01"


def test_an_axis_names_its_stage(bench: Bench):
    assert bench.ask("1ID?") == bench.ask("1ID") == "TS50DC.5, SN1263"


@pytest.mark.parametrize("text", ["*OPC?", "*STB?", "*CLS", "*RST", "SYST:ERR?", "1XX", "XX?", "hello"])
def test_what_it_does_not_know_is_answered_by_silence_and_error_6(bench: Bench, text: str):
    assert bench.send(text) == []
    assert bench.errors() == [6]
    assert bench.controller.tally.interleavings == 0


def test_an_axis_is_in_motion_through_a_whole_home_search(bench: Bench):
    bench.send("1MO;1OR1")
    while bench.controller.report()["doing"]["1"] == "home":
        assert bench.send("1MD;TS") == ["0", "Q"]
        bench.wait(0.01)
    assert bench.send("1MD;TS") == ["1", "P"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("TP", 37),
        ("9TP", 9),
        ("0TP", 9),
        ("1PA", 38),
        ("1VA", 38),
        ("1PAquick", 7),
        ("1DH+", 7),
        ("1ZB1.5", 7),
        ("1VA5H", 7),
        ("WT+", 7),
        ("1SN1E999", 7),
        ("1VA50", 110),
        ("2AC500", 211),
        ("1JK5000", 115),
        ("1VA-1", 101),
        ("1PA5", 113),
        ("3OR1", 320),
        ("1SU0.1", 126),
        ("1SN9", 101),
        ("9ST", 9),
    ],
)
def test_a_wrong_command_is_silent_and_queues_its_error(bench: Bench, text: str, code: int):
    assert bench.send(text) == []
    assert bench.errors() == [code]


# errors


def test_errors_come_out_in_order_and_only_once_whichever_way_they_are_read(bench: Bench):
    bench.send("XX;TP;1PA5")
    assert bench.ask("TE?") == "6"
    code, ticks, text = bench.ask("TB?").split(", ")
    assert (code, text) == ("37", "AXIS NUMBER MISSING")
    assert ticks.isdigit()
    assert bench.ask("TB").split(", ")[2] == "AXIS-1 MOTOR NOT ENABLED"
    assert bench.ask("TE") == "0"
    assert bench.ask("TB?").endswith("NO ERROR DETECTED")


def test_time_stamps_of_errors_are_servo_ticks(bench: Bench):
    bench.wait(4.0)
    bench.send("XX")
    bench.wait(1.0)
    assert bench.ask("TB?").split(", ")[1] == "10000"


def test_the_error_queue_holds_ten(bench: Bench):
    bench.send(";".join(["XX"] * 13))
    assert bench.errors() == [6] * 10


# motion


def test_a_move_takes_the_time_of_its_trapezoid(powered: Bench):
    powered.send("1VA10;1AC40;1AG20;1PA10")
    duration_s = 10 / 10 + 0.5 * (10 / 40 + 10 / 20)
    powered.wait(duration_s - 0.01)
    assert powered.ask("1MD?") == "0"
    powered.wait(0.02)
    assert powered.send("1MD;1TP") == ["1", "10"]


def test_position_and_velocity_are_right_on_the_way(powered: Bench):
    powered.send("1VA10;1AC40;1AG40;1PA10")
    powered.wait(0.25)
    assert powered.send("1TP;1TV;1DV;1DP") == ["1.25", "10", "10", "1.25"]
    powered.wait(0.5)
    assert powered.send("1TP;1PA?") == ["6.25", "10"]


def test_a_relative_move_starts_from_where_the_axis_is_heading(powered: Bench):
    powered.send("1PA5")
    powered.wait(0.1)
    powered.send("1PR2")
    powered.wait(5)
    assert powered.ask("1TP") == "7"


def test_a_new_target_behind_the_axis_turns_it_round(powered: Bench):
    powered.send("1PA10")
    powered.wait(0.6)
    powered.send("1PA0")
    powered.wait(10)
    assert powered.send("1TP;1MD") == ["0", "1"]


def test_axes_move_independently(powered: Bench):
    powered.send("1PA10;2PA-1")
    powered.wait(0.6)
    assert powered.send("1MD;2MD") == ["0", "1"]


def test_the_status_byte_shows_motion_and_power(bench: Bench):
    assert bench.ask("TS") == "@"
    bench.send("1MO")
    assert bench.ask("TS") == "P"
    bench.send("1PA10")
    assert bench.ask("TS") == "Q"
    bench.send("2MO;2PA10")
    assert bench.ask("TS?") == "S"
    bench.wait(10)
    assert bench.ask("TS") == "P"


def test_the_activity_byte_shows_trajectories_jogs_and_waits(powered: Bench):
    assert powered.ask("TX") == "@"
    powered.send("1PA10")
    assert powered.ask("TX") == "P"
    powered.send("1WS")
    assert powered.ask("TX") == "R"
    powered.wait(10)
    powered.send("1MV-")
    assert powered.ask("TX") == "T"


def test_a_target_beyond_a_soft_limit_is_refused(powered: Bench):
    powered.send("1SL-1;1SR2;1PA2.5;1PA-1.5;1PA2")
    powered.wait(5)
    assert powered.ask("1TP") == "2"
    assert powered.errors() == [106, 107]


@pytest.mark.parametrize(("target", "code"), [("30", 104), ("-30", 105)])
def test_a_travel_limit_stops_the_axis_and_switches_its_motor_off(powered: Bench, target: str, code: int):
    powered.send(f"1SL-40;1SR40;1PA{target}")
    powered.wait(10)
    assert powered.send("1MD;1MO?;2MO?") == ["1", "0", "1"]
    assert abs(float(powered.ask("1TP"))) == 26
    assert powered.errors() == [code]


def test_an_axis_at_its_travel_limit_can_leave_it(powered: Bench):
    powered.send("1MT+")
    powered.wait(10)
    assert powered.ask("PH") == "1H, 7H"
    powered.send("1PA20")
    powered.wait(10)
    assert powered.ask("1TP") == "20"
    assert powered.errors() == []


def test_at_the_line_s_pace_the_controller_is_silent_after_a_travel_limit():
    bench = Bench(paced=True)
    bench.send("1MO;1SR40;1PA30")
    bench.wait(3)
    assert bench.send("1TP") == []
    assert bench.wait(5) == ["26"]


def test_a_jog_runs_until_stopped(powered: Bench):
    powered.send("1MV+")
    powered.wait(1)
    assert powered.ask("1MV?") == "0"
    powered.send("1ST")
    powered.wait(1)
    assert powered.ask("1MV?") == "1"
    stopped_at = powered.ask("1TP")
    powered.wait(5)
    assert powered.ask("1TP") == stopped_at
    assert powered.errors() == []


def test_a_jog_ends_at_the_soft_limit_with_its_error(powered: Bench):
    powered.send("1SR3;1MV+")
    powered.wait(10)
    assert powered.send("1TP;1MD") == ["3", "1"]
    assert powered.errors() == [106]


def test_stop_decelerates_with_ag_and_abort_with_ae(powered: Bench):
    distances = []
    for word in ("1ST", "AB"):
        powered.send("1PA0;1WS")
        powered.wait(10)
        powered.send("1PA20")
        powered.wait(1)
        before = float(powered.ask("1TP"))
        powered.send(word)
        powered.wait(2)
        distances.append(float(powered.ask("1TP")) - before)
    assert distances == pytest.approx([10**2 / (2 * 40), 10**2 / (2 * 160)], abs=2e-4)
    assert powered.send("1MD;1MO?") == ["1", "1"]


def test_stop_without_an_axis_stops_all(powered: Bench):
    powered.send("1PA20;2PA20;3PA20")
    powered.wait(0.5)
    powered.send("ST")
    powered.wait(1)
    assert powered.send("1MD;2MD;3MD") == ["1", "1", "1"]
    assert all(0 < float(powered.ask(f"{axis}TP")) < 20 for axis in (1, 2, 3))


def test_stop_of_one_axis_leaves_the_others_alone(powered: Bench):
    powered.send("1PA20;2PA20;1ST")
    powered.wait(10)
    assert powered.send("1TP;2TP") == ["0", "20"]


def test_switching_the_motor_off_ends_the_motion(powered: Bench):
    powered.send("1PA20")
    powered.wait(0.5)
    powered.send("1MF")
    powered.wait(1)
    assert powered.send("1MO?;1MF?;1MD") == ["0", "0", "1"]
    assert float(powered.ask("1TP")) < 10


@pytest.mark.parametrize(("mode", "where"), [("1", 0.0), ("2", 0.0), ("", 0.0), ("3", 26.0), ("4", -26.0)])
def test_a_home_search_ends_at_its_switch_which_is_zero_then(powered: Bench, mode: str, where: float):
    powered.send("1PA4;1WS;1DH7")
    powered.wait(3)
    powered.send(f"1OR{mode}")
    powered.wait(30)
    assert powered.send("1MD;1TP") == ["1", "0"]
    assert powered.table.motion(1).target == where
    assert powered.errors() == []


def test_a_home_search_of_mode_0_goes_to_the_zero_count(powered: Bench):
    powered.send("1PA4;1WS;1DH1;1OR0")
    powered.wait(10)
    assert powered.table.motion(1).target == 3.0
    assert powered.ask("1TP") == "0"


def test_home_is_called_what_sh_says(powered: Bench):
    powered.send("1SH2.5;1PA3;1WS;1OR2")
    powered.wait(20)
    assert powered.ask("1TP") == "2.5"


def test_no_move_is_taken_during_a_home_search(powered: Bench):
    powered.send("1PA20")
    powered.wait(5)
    powered.send("1OR1;1PA3")
    assert powered.errors() == [130]


def test_a_stop_aborts_a_home_search(powered: Bench):
    powered.send("1PA20")
    powered.wait(5)
    powered.send("1OR1")
    powered.wait(0.5)
    powered.send("ST")
    powered.wait(1)
    assert powered.ask("1MD") == "1"
    assert powered.errors() == [120]
    assert 10 < float(powered.ask("1TP")) < 20


def test_units_change_what_numbers_mean_but_not_where_things_are(powered: Bench):
    powered.send("1PA5;1WS;1SN3")
    powered.wait(5)
    assert powered.send("1TP;1VA?;1SR?") == ["5000", "10000", "25000"]
    powered.send("1PA2500")
    powered.wait(5)
    assert powered.table.motion(1).target == 2.5
    powered.send("3SN10")
    assert powered.ask("3SN?") == "10"
    assert float(powered.ask("3SR?")) == pytest.approx(2967.06, abs=0.01)


def test_defining_the_position_moves_nothing(powered: Bench):
    powered.send("1PA5;1WS;1DH1.5")
    powered.wait(5)
    assert powered.ask("1TP") == "1.5"
    assert powered.table.motion(1).target == 5.0
    powered.send("1DH")
    assert powered.ask("1TP") == "0"


def test_after_a_power_cycle_motors_are_off_and_zero_is_where_the_stage_stands(powered: Bench):
    powered.send("1VA7;1PA5")
    powered.wait(5)
    powered.controller.power_cycle(powered.now_s)
    assert powered.send("1MO?;1TP;1VA?;TE?") == ["0", "0", "10", "0"]
    assert powered.table.motion(1).target == 5.0


# waits and break-in


def test_ws_holds_back_what_follows_until_the_motion_ends(powered: Bench):
    assert powered.send("1PA10;1WS;1TP") == []
    assert powered.wait(5) == ["10"]


def test_ws_with_a_time_waits_that_much_longer(powered: Bench):
    powered.send("1VA10;1AC40;1AG40;1PA10;1WS500;1TP")
    assert powered.wait(1.25 + 0.45) == []
    assert powered.wait(0.1) == ["10"]


def test_ws_without_an_axis_waits_for_all(powered: Bench):
    powered.send("1PA1;2PA20;WS;1TP")
    assert powered.wait(1) == []
    assert powered.wait(5) == ["1"]


def test_a_query_on_a_later_line_waits_too(powered: Bench):
    powered.send("1PA10")
    powered.send("1WS0")
    assert powered.send("1MD?") == []
    assert powered.wait(5) == ["1"]


def test_wp_waits_for_a_position(powered: Bench):
    powered.send("1PA10;1WP5;1TP")
    assert powered.wait(0.5) == []
    (reply,) = powered.wait(0.5)
    assert float(reply) == pytest.approx(5, abs=1e-3)


def test_wt_waits_for_a_time(bench: Bench):
    bench.send("WT300;1TP")
    assert bench.wait(0.29) == []
    assert bench.wait(0.02) == ["0"]


@pytest.mark.parametrize("word", ["ST", "AB", "1ST", "1AB", "st"])
def test_a_stop_breaks_into_a_wait_and_answers_nothing(powered: Bench, word: str):
    powered.send("1PA20;1WS")
    powered.send("1MD?")
    powered.wait(0.5)
    assert word.upper() == "AB" or powered.controller.report()["doing"]["1"] == "move"
    powered.send(word)
    powered.wait(1)
    assert powered.ask("1MD?") == "1"
    assert 0 < float(powered.ask("1TP")) < 10
    assert powered.controller.tally.interleavings == 0
    assert powered.errors() == []


def test_nothing_moves_behind_a_stop(powered: Bench):
    powered.send("1PA20;1WS;1PA0;1TP")
    powered.wait(0.5)
    powered.send("ST")
    powered.wait(10)
    assert float(powered.ask("1TP")) > 1
    assert powered.ask("1MD") == "1"


# counting


def test_replies_are_counted_by_what_they_answer(powered: Bench):
    powered.send("1TP;2TP;1TP;TE?")
    report = powered.controller.report()
    assert report["produced"] == {"1TP": 2, "2TP": 1, "TE": 1}
    assert report["exchanges"] == 4


def test_moves_and_stops_are_remembered_with_their_times(powered: Bench):
    powered.send("1PA5")
    powered.wait(0.25)
    powered.send("ST")
    report = powered.controller.report()
    assert report["moves"] == [{"t_s": 1000.0, "axis": 1, "word": "PA", "target": 5.0}]
    assert report["stops"] == [{"t_s": 1000.25, "axis": None, "word": "ST", "moving": [1]}]


# interleaving


def test_a_command_before_the_last_reply_was_fetched_is_interleaved(bench: Bench):
    bench.send("1TP")
    bench.send("2TP", pending=3)
    assert bench.controller.tally.interleavings == 1


def test_a_patient_client_is_never_accused(bench: Bench):
    for text in ("1TP", "1MO", "1VA5", "1TP;2TP", "TE?"):
        bench.send(text)
        bench.controller.feed(b"\n", bench.now_s, 0, 5)  # the LF of a CR LF, after the reply has left
    assert bench.controller.tally.interleavings == 0


def test_a_second_query_in_the_same_breath_is_interleaved(bench: Bench):
    bench.controller.feed(b"1TP\r\n2TP\r\n", bench.now_s)
    assert bench.controller.tally.interleavings == 1


def test_a_command_while_a_query_is_held_back_is_interleaved(powered: Bench):
    powered.send("1PA20;1WS;1TP")
    powered.send("2TP")
    assert powered.controller.tally.interleavings == 1


def test_a_stop_may_always_break_in(bench: Bench):
    bench.send("1TP")
    bench.send("ST", pending=3)
    bench.send("1AB", pending=3)
    assert bench.controller.tally.interleavings == 0


@pytest.mark.parametrize("text", ["1T2TP", "1PA51TP", "1TP2TP", "1VA1MD?"])
def test_two_lines_that_got_into_each_other_are_noticed(bench: Bench, text: str):
    assert bench.send(text) == []
    assert bench.controller.tally.misframed == 1
    assert bench.controller.tally.interleavings == 1
    assert bench.errors() == [6]


def test_there_are_two_models():
    table = LocalTable(0)
    assert make(model="ESP301", table=table, seed=0).line.baud == 921600
    with pytest.raises(ValueError, match="ESP300, ESP301"):
        make(model="ESP7000", table=table, seed=0)
