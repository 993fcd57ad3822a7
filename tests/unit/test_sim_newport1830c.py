"""The 1830-C simulator is true to the meter: letters, status bits, units, ranges, zero, reference, echo."""

from __future__ import annotations

from math import log10

import pytest

from duodaq.sim import LocalTable, make_simulator
from duodaq.sim.newport1830c import make
from duodaq.sim.table import rest


class Bench:
    """One meter that looks at a bright beam of known power."""

    def __init__(self, model: str | None = None) -> None:
        self.table = LocalTable(1, shutter_open=True)
        self.table.set_motion(1, rest(25.0))
        self.table.set_laser(True, 1.5e-3)
        self.meter = make(model=model, table=self.table, seed=0)
        self.meter.paced = False
        self.meter.open_session(0, 50.0)

    def send(self, text: str, *, pending: int = 0, now_s: float = 60.0) -> list[str]:
        replies = self.meter.feed(text.encode() + b"\n", now_s, 0, pending)
        assert all(reply.data.endswith(b"\n") for reply in replies)
        return [reply.data[:-1].decode() for reply in replies]

    def ask(self, text: str) -> str:
        (reply,) = self.send(text)
        return reply

    def tell(self, *texts: str) -> None:
        for text in texts:
            assert self.send(text) == []

    def status(self) -> int:
        return int(self.ask("Q?"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_reading_is_the_power_on_the_table(bench: Bench):
    reading = bench.ask("D?")
    assert float(reading) == pytest.approx(1.5e-3, rel=0.02)
    assert reading.startswith("+1.")
    assert reading.endswith("E-3")


def test_lower_case_and_blanks_and_carriage_returns_are_accepted(bench: Bench):
    assert bench.ask("q?") == bench.ask(" Q ? \r") == bench.ask("Q?")


def test_a_reading_below_one_has_no_zero_before_its_point(bench: Bench):
    bench.table.set_laser(True, 0.4e-3)
    assert bench.ask("D?").startswith("+.")


def test_dbm_is_relative_to_a_milliwatt_and_db_to_the_stored_reference(bench: Bench):
    bench.tell("F1", "S", "U3")
    assert float(bench.ask("D?")) == pytest.approx(10 * log10(1.5), abs=0.05)
    bench.tell("U2")
    assert float(bench.ask("D?")) == pytest.approx(0, abs=0.05)
    bench.tell("U4")
    assert float(bench.ask("D?")) == pytest.approx(1, abs=0.01)


def test_db_is_relative_to_a_milliwatt_after_power_up(bench: Bench):
    bench.tell("U2")
    assert float(bench.ask("D?")) == pytest.approx(10 * log10(1.5), abs=0.05)


def test_the_order_of_the_logarithmic_units_can_be_the_other_one():
    bench = Bench("1830-C/U2=dBm")
    bench.table.set_laser(True, 3e-3)
    bench.tell("F1", "S", "U3")
    assert float(bench.ask("D?")) == pytest.approx(0, abs=0.05)
    bench.tell("U2")
    assert float(bench.ask("D?")) == pytest.approx(10 * log10(3), abs=0.05)


@pytest.mark.parametrize(
    ("letter", "low", "high"),
    [("U", 1, 4), ("R", 0, 8), ("F", 1, 3), ("A", 0, 1), ("B", 0, 1), ("G", 0, 1), ("K", 0, 2), ("L", 0, 1)],
)
def test_settings_take_their_range_and_nothing_else(bench: Bench, letter: str, low: int, high: int):
    for value in range(low, high + 1):
        bench.tell(f"{letter}{value}")
        assert bench.ask(f"{letter}?") == str(value)
    bench.tell("C")
    bench.tell(f"{letter}{high + 1}")
    assert bench.ask(f"{letter}?") == str(high)
    assert bench.status() & 1


def test_the_wavelength_has_four_digits_and_the_limits_of_the_detector(bench: Bench):
    bench.tell("W633")
    assert bench.ask("W?") == "0633"
    bench.tell("W1550")
    assert bench.ask("W?") == "0633"
    assert bench.status() & 1


def test_a_wrong_wavelength_gives_a_wrong_power(bench: Bench):
    bench.tell("W0400")
    assert float(bench.ask("D?")) == pytest.approx(3e-3, rel=0.02)


@pytest.mark.parametrize("text", ["X?", "J5", "DD", "PM:P?", "*IDN?", "E?X"])
def test_what_it_does_not_know_is_silence_and_the_command_error_bit(bench: Bench, text: str):
    bench.tell("C", text)
    assert bench.status() & 3 == 2


@pytest.mark.parametrize("clear", ["C", "CS"])
def test_both_spellings_clear_the_status(bench: Bench, clear: str):
    bench.tell("XX", "R9")
    assert bench.status() & 3 == 3
    bench.tell(clear)
    assert bench.status() == 0


def test_a_reading_sets_the_read_done_bit(bench: Bench):
    bench.tell("C")
    bench.ask("D?")
    assert bench.status() == 128


def test_a_new_reading_sets_the_read_done_bit_unasked_unless_on_hold(bench: Bench):
    bench.table.set_laser(True, 2.0)
    bench.tell("G0", "C")
    assert bench.send("Q?", now_s=70.0) == ["0"]
    bench.tell("G1", "C")
    assert int(bench.send("Q?", now_s=70.0)[0]) & 132 == 132


def test_the_slow_filter_takes_sixteen_samples_to_a_new_reading(bench: Bench):
    bench.meter.paced = True
    bench.tell("F1", "C")
    assert bench.send("Q?", now_s=60.5) == ["0"]
    assert bench.send("Q?", now_s=61.0) == ["128"]


def test_a_range_that_is_too_sensitive_shows_over_range_and_full_scale(bench: Bench):
    bench.tell("C", "R3")
    assert float(bench.ask("D?")) == pytest.approx(2e-6)
    assert bench.status() & 8
    bench.tell("C", "R0")
    assert float(bench.ask("D?")) == pytest.approx(1.5e-3, rel=0.02)
    assert not bench.status() & 8


def test_too_much_light_saturates_the_detector_unless_attenuated(bench: Bench):
    bench.table.set_laser(True, 2.0)
    bench.tell("C")
    bench.ask("D?")
    assert bench.status() & 4
    bench.tell("A1", "C")
    assert float(bench.ask("D?")) == pytest.approx(2.0, rel=0.02)
    assert not bench.status() & 4


def test_zero_subtracts_what_was_there(bench: Bench):
    bench.tell("F1", "Z1")
    assert bench.ask("Z?") == "1"
    assert abs(float(bench.ask("D?"))) < 2e-5
    bench.tell("Z0")
    assert float(bench.ask("D?")) == pytest.approx(1.5e-3, rel=0.02)


def test_hold_keeps_the_reading_until_go(bench: Bench):
    bench.tell("G0")
    held = bench.ask("D?")
    bench.table.set_shutter(False)
    assert bench.ask("D?") == held
    bench.tell("G1")
    assert abs(float(bench.ask("D?"))) < 1e-5


def test_echo_returns_every_command_before_its_answer(bench: Bench):
    assert bench.send("E1") == []
    (text,) = bench.send("W?")
    assert text == "W?\n0800"
    assert bench.send("F2") == ["F2"]
    bench.send("E0")
    assert bench.send("F2") == []


def test_power_up_and_auto_calibration_take_a_while_at_the_instrument_s_own_pace():
    bench = Bench()
    bench.meter.paced = True
    bench.meter.power_cycle(60.0)
    assert bench.status() & 32
    assert int(bench.send("Q?", now_s=61.0)[0]) & 32 == 0
    bench.send("O", now_s=62.0)
    assert int(bench.send("Q?", now_s=62.5)[0]) & 32


def test_a_power_cycle_restores_the_settings(bench: Bench):
    bench.tell("U3", "R4", "E1")
    bench.meter.power_cycle(60.0)
    assert [bench.ask(text) for text in ("U?", "R?", "E?")] == ["1", "0", "0"]


def test_every_reading_is_counted(bench: Bench):
    for _ in range(7):
        bench.ask("D?")
    bench.ask("d?")
    bench.ask("W?")
    assert bench.meter.report()["produced"] == {"D": 8, "W": 1}


def test_a_line_longer_than_its_buffer_is_one_mistake(bench: Bench):
    bench.tell("C", "W" + "9" * 5000)
    assert bench.status() & 3
    assert bench.ask("W?") == "0800"


def test_interleaving_is_noticed(bench: Bench):
    bench.ask("D?")
    assert bench.meter.tally.interleavings == 0
    bench.send("D?", pending=4)
    assert bench.meter.tally.interleavings == 1
    bench.send("D?D?")
    assert bench.meter.tally.interleavings == 2


def test_a_wrong_model_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="1830-C"):
        make_simulator("newport1830c", model="1918-R", table=LocalTable(0))
