"""The Mai Tai simulator is true to the laser: its words, units, lags, warm-up, watchdog, errors and flow control."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable, make_simulator
from duodaq.sim.maitai import make


class Bench:
    """One laser that nobody has touched, and a clock of its own."""

    def __init__(self, model: str = "MaiTai HP", *, paced: bool = True) -> None:
        self.table = LocalTable(1, shutter_open=True)
        self.laser = make(model=model, table=self.table, seed=0)
        self.laser.paced = paced
        self.now_s = 100.0
        self.laser.open_session(0, self.now_s)

    def send(self, data: bytes) -> bytes:
        replies = self.laser.feed(data, self.now_s)
        return b"".join(reply.data for reply in [*replies, *self.wait(0.1)])

    def ask(self, text: str) -> str:
        return self.send(f"{text}\n".encode()).decode().removesuffix("\n")

    def tell(self, *texts: str) -> None:
        for text in texts:
            assert self.ask(text) == ""

    def wait(self, duration_s: float) -> list[object]:
        """Let time pass as the server does: whatever is due is done when it is due."""
        replies, end_s = [], self.now_s + duration_s
        while (at_s := self.laser.due_at_s()) is not None and at_s <= end_s:
            self.now_s = max(self.now_s, at_s)
            replies += self.laser.due(self.now_s)
        self.now_s = end_s
        return replies


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def warm() -> Bench:
    return Bench("MaiTai HP/warm")


def test_power_that_comes_on_finds_the_shutter_closed_and_no_light(bench: Bench):
    state = bench.table.state()
    assert not state.shutter_open
    assert not state.laser_on
    assert bench.ask("READ:PCTW?") == "000%"
    assert bench.ask("SHUT?") == "0"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_command_may_end_in_any_way_and_a_reply_ends_with_a_line_feed(bench: Bench, end: str):
    assert bench.send(f"WAV?{end}".encode()) == b"800nm\n"


@pytest.mark.parametrize(
    "text", ["READ:WAV?", "read:wavelength?", "Read:Wav?", ":READ:WAVELENGTH?", "READ:PLASER:POWER?", "*stb?"]
)
def test_words_are_long_or_short_in_any_mixture_and_case(bench: Bench, text: str):
    assert bench.ask(text) != ""
    assert bench.ask("SYST:ERR?").startswith("0 ")


@pytest.mark.parametrize("text", ["WAVELENGTH:820", "SHUTTER:1", "WAVE?", "NONSENSE", "WAV 8x0", "*OPC?", "WAV:POW?"])
def test_what_is_wrong_is_silence_and_a_command_error(bench: Bench, text: str):
    bench.tell(text)
    assert bench.ask("SYST:ERR?").split()[0] == "129"
    assert bench.ask("SYST:ERR?") == "0 No error"
    assert not bench.table.state().shutter_open


@pytest.mark.parametrize("text", ["WAV 1041", "WAV 689", "SHUT 2", "PLAS:PCUR 101"])
def test_a_value_out_of_range_is_an_execution_error_and_changes_nothing(bench: Bench, text: str):
    bench.tell(text)
    assert bench.ask("SYST:ERR?").split()[0] == "130"
    assert bench.ask("WAV?") == "800nm"


@pytest.mark.parametrize(
    ("model", "low", "high"), [("MaiTai", 750, 850), ("MaiTai XF", 780, 920), ("MaiTai HP", 690, 1040)]
)
def test_each_model_has_its_range(model: str, low: int, high: int):
    bench = Bench(model)
    assert (bench.ask("WAV:MIN?"), bench.ask("WAV:MAX?")) == (f"{low}nm", f"{high}nm")


def test_a_cold_laser_warms_up_for_two_minutes_and_does_not_emit_then(bench: Bench):
    bench.tell("ON")
    assert bench.ask("READ:PCTW?") == "001%"
    bench.wait(60.0)
    assert bench.ask("READ:PCTW?") == "050%"
    bench.tell("ON")
    assert bench.ask("SYST:ERR?").split()[0] == "130"
    bench.wait(60.0)
    assert bench.ask("READ:PCTW?") == "100%"
    assert bench.ask("*STB?") == "0"
    assert not bench.table.state().laser_on


def test_a_warm_laser_ramps_up_and_locks(warm: Bench):
    warm.tell("ON")
    assert warm.ask("*STB?") == "1"
    warm.wait(10.0)
    assert warm.ask("*STB?") == "3"
    assert warm.ask("READ:POW?") == "3.000W"
    assert warm.table.state().laser_power_w == pytest.approx(warm.table.truth().power_w)
    warm.tell("OFF")
    assert warm.ask("*STB?") == "0"
    assert not warm.table.state().laser_on
    assert warm.ask("READ:PCTW?") == "100%"


def test_the_wavelength_is_reached_after_a_while_and_so_is_it_on_the_table(warm: Bench):
    warm.tell("ON")
    warm.wait(10.0)
    warm.tell("WAV 900")
    assert warm.ask("WAV?") == "900nm"
    assert 800 < float(warm.ask("READ:WAV?").removesuffix("nm")) < 900
    assert warm.ask("*STB?") == "1"
    warm.wait(3.0)
    assert warm.ask("READ:WAV?") == "900nm"
    assert warm.table.wavelength_nm() == 900
    assert warm.table.state().laser_power_w < 0.6 * warm.table.truth().power_w


def test_the_shutter_moves_at_once_and_says_so_a_second_late(warm: Bench):
    warm.tell("SHUT 1")
    assert warm.table.state().shutter_open
    assert warm.ask("SHUT?") == "0"
    warm.wait(1.0)
    assert warm.ask("SHUT?") == "1"
    warm.tell("SHUT 0")
    assert not warm.table.state().shutter_open
    assert warm.ask("SHUT?") == "1"


def test_on_and_off_leave_the_shutter_and_power_that_goes_closes_it(warm: Bench):
    warm.tell("SHUT 1", "ON", "OFF")
    assert warm.table.state().shutter_open
    warm.laser.power_cycle(warm.now_s)
    assert not warm.table.state().shutter_open
    assert warm.ask("READ:PCTW?") == "000%"


def test_the_pump_is_switched_off_when_nobody_talks_for_the_watchdog_s_time(warm: Bench):
    warm.tell("ON", "SHUT 1", "TIM:WATC 3")
    for _ in range(5):
        warm.wait(2.0)
        assert warm.ask("*STB?") != "0"
    warm.wait(3.1)
    assert not warm.table.state().laser_on
    assert warm.laser.report()["watchdog_fired"] == 1
    assert warm.ask("SYST:ERR?").split()[0] == "160"


def test_nonsense_does_not_feed_the_watchdog(warm: Bench):
    warm.tell("ON", "TIM:WATC 3")
    for _ in range(4):
        warm.wait(1.0)
        warm.tell("HELLO?")
    assert not warm.table.state().laser_on


def test_errors_queue_with_their_weights_and_the_lit_laser_adds_its_own(warm: Bench):
    warm.tell("ON", "HELLO", "WAV 5")
    assert [warm.ask("SYST:ERR?").split()[0] for _ in range(3)] == ["193", "194", "64"]


def test_xoff_silences_it_and_xon_lets_it_speak(bench: Bench):
    assert bench.send(b"\x13WAV?\n") == b""
    assert bench.send(b"\x11") == b"800nm\n"


def test_a_full_input_buffer_says_xoff_and_then_xon_and_loses_nothing(bench: Bench):
    said = bench.send(b"WAV?\n" * 42)
    assert said.startswith(b"\x13")
    said += b"".join(reply.data for reply in bench.wait(5.0))
    assert said.count(b"\x11") == 1
    assert said.replace(b"\x11", b"").replace(b"\x13", b"") == b"800nm\n" * 42
    assert bench.laser.report()["lines_lost"] == 0


def test_who_ignores_xoff_loses_lines(bench: Bench):
    bench.send(b"WAV?\n" * 100)
    assert bench.laser.report()["lines_lost"] > 0


def test_a_command_that_does_not_wait_for_a_reply_is_noticed(bench: Bench):
    bench.laser.feed(b"WAV?\n", bench.now_s, 0, 6)
    assert bench.laser.tally.interleavings == 1


def test_a_saved_wavelength_is_there_after_a_power_cycle(bench: Bench):
    bench.tell("WAV 900", "SAV", "WAV 700")
    bench.laser.power_cycle(bench.now_s)
    assert bench.ask("WAV?") == "900nm"


def test_the_rest_of_the_manual_s_queries_answer_with_their_units(warm: Bench):
    answers = {q: warm.ask(q) for q in ("READ:PLAS:DIOD1:CURR?", "READ:PLAS:DIOD2:TEMP?", "READ:PLAS:SHGS?", "MODE?")}
    assert answers == {
        "READ:PLAS:DIOD1:CURR?": "0.0%",
        "READ:PLAS:DIOD2:TEMP?": "20.5",
        "READ:PLAS:SHGS?": "0S",
        "MODE?": "PPOW",
    }
    assert len(warm.ask("PLAS:HIST?").split()) == 16
    assert warm.ask("*IDN?").startswith("Spectra Physics,MaiTai,")
    assert warm.ask("READ:HUM?").endswith("%")


def test_a_wrong_model_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="MaiTai HP"):
        make_simulator("maitai", model="Chameleon", table=LocalTable(0))
