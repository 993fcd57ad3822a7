"""The simulated oscilloscope: what its blocks and preambles mean, and when it takes a picture."""

from __future__ import annotations

import numpy as np
import pytest

from duodaq.sim import LocalTable, make_simulator
from duodaq.sim.scpi import make_scope


class Bench:
    def __init__(self, *, paced: bool = False) -> None:
        self.table = LocalTable(0, shutter_open=True)
        self.scope = make_scope(None, self.table)
        self.scope.paced = paced
        self.now_s = 1.0
        self.scope.open_session(1, self.now_s)

    def send(self, text: str) -> bytes:
        return b"".join(reply.data for reply in self.scope.feed(f"{text}\n".encode(), self.now_s, 1))

    def ask(self, text: str) -> str:
        said = self.send(text)
        assert said.endswith(b"\n"), self.errors()
        return said[:-1].decode("latin-1")

    def tell(self, *texts: str) -> None:
        for text in texts:
            assert self.send(text) == b""
            assert self.errors() == '0,"No error"'

    def errors(self) -> str:
        return self.send("SYST:ERR:ALL?").decode().strip().replace("+0", "0")

    def block(self, text: str = "WAV:DATA?") -> bytes:
        reply = self.send(text)
        assert reply[:2] == b"#8"
        size = int(reply[2:10])
        assert reply[10 + size :] == b"\n"
        return reply[10 : 10 + size]

    def volts(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and voltages of the last picture, by its own preamble."""
        form, _, points, _, xinc, xorig, xref, yinc, yorig, yref = (float(f) for f in self.ask("WAV:PRE?").split(","))
        data = self.block()
        if form == 4:
            return np.empty(0), np.array([float(number) for number in data.split(b",")])
        codes = np.frombuffer(data, np.uint8 if form == 0 else ">u2").astype(float)
        assert len(codes) == points
        return (np.arange(points) - xref) * xinc + xorig, (codes - yref) * yinc + yorig


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_digitised_sine_is_a_sine_that_begins_at_the_trigger(bench: Bench):
    bench.tell("CHAN1:SCAL 0.2", "TIM:SCAL 2E-4", "TRIG:SLOP POS", "DIG CHAN1")
    times_s, volts = bench.volts()
    assert volts == pytest.approx(0.5 * np.sin(2 * np.pi * 1000 * times_s), abs=0.02)
    assert times_s[0] == pytest.approx(-1e-3)


def test_an_offset_moves_the_picture_and_not_the_voltage(bench: Bench):
    bench.tell("CHAN1:SCAL 0.2;OFFS 0.3", "DIG CHAN1")
    before = bench.block()
    assert bench.volts()[1] == pytest.approx(0.5 * np.sin(2 * np.pi * 1000 * bench.volts()[0]), abs=0.02)
    bench.tell("CHAN1:OFFS -0.3")
    assert np.mean(list(bench.block())) > np.mean(list(before)) + 50


def test_the_trigger_s_slope_and_level_are_met(bench: Bench):
    bench.tell("CHAN1:SCAL 0.2", "TIM:SCAL 1E-4", "TRIG:EDGE:SLOPe NEG", "TRIG:LEV 0.25", "DIG CHAN1")
    times_s, volts = bench.volts()
    at = int(np.argmin(np.abs(times_s)))
    assert volts[at] == pytest.approx(0.25, abs=0.03)
    assert volts[at + 20] < volts[at - 20]


@pytest.mark.parametrize("form", ["BYTE", "WORD", "ASCii"])
def test_every_format_says_the_same_and_words_more_finely(bench: Bench, form: str):
    bench.tell("CHAN1:SCAL 0.2", "DIG CHAN1", f"WAV:FORM {form}")
    _, volts = bench.volts()
    bench.tell("WAV:FORM BYTE")
    _, coarse = bench.volts()
    assert volts == pytest.approx(coarse, abs=0.2 * 8 / 256)


def test_the_byte_order_is_the_one_asked_for(bench: Bench):
    bench.tell("DIG CHAN1", "WAV:FORM WORD")
    high_first = np.frombuffer(bench.block(), ">u2")
    bench.tell("WAV:BYT LSBF")
    assert (np.frombuffer(bench.block(), "<u2") == high_first).all()


def test_blocks_hold_every_byte_there_is_line_feeds_and_signs_too(bench: Bench):
    bench.tell("CHAN3:DISP ON;OFFS 1.25;SCAL 0.32", "CHAN1:SCAL 0.13", "DIG CHAN1", "WAV:POIN 10000")
    data = bench.block()
    assert b"\n" in data
    assert b"#" in data
    assert len(data) == 10000


def test_what_is_off_screen_is_clipped(bench: Bench):
    bench.tell("CHAN1:SCAL 0.05", "DIG CHAN1")
    data = bench.block()
    assert (min(data), max(data)) == (1, 255)


def test_the_photodiode_is_on_channel_2(bench: Bench):
    bench.tell("CHAN2:DISP 1", "DIG CHAN2", "WAV:SOUR CHAN2")
    lit = float(bench.ask("MEAS:VAV? CHAN2"))
    assert lit == pytest.approx(bench.table.truth().power_w * 1000, rel=0.05)
    bench.table.set_shutter(False)
    bench.tell("DIG CHAN2")
    assert abs(float(bench.ask("MEAS:VAV? CHAN2"))) < 0.01


def test_a_stopped_scope_keeps_its_picture_and_a_running_one_does_not(bench: Bench):
    bench.tell("DIG CHAN1")
    assert bench.block() == bench.block()
    bench.tell("RUN")
    first = bench.block()
    bench.now_s += 0.1
    assert bench.block() != first


def test_running_single_and_stopped_are_told(bench: Bench):
    assert int(bench.ask("OPERegister:CONDition?")) == 8
    bench.tell("STOP")
    assert int(bench.ask("OPERegister:CONDition?")) == 0
    bench.tell("TRIG:SWE NORM", "TRIG:LEV 3", "SING")
    assert int(bench.ask("OPERegister:CONDition?")) == 8
    assert bench.ask("ACQ:COMP?") == "0"
    bench.tell("TRIG:FORC")
    assert int(bench.ask("OPERegister:CONDition?")) == 0
    assert bench.ask("ACQ:COMP?") == "100"


def test_digitising_holds_what_follows_until_the_trigger_comes():
    bench = Bench(paced=True)
    bench.tell("TIM:RANG 0.5")
    assert bench.send("DIG CHAN1;*OPC?") == b""
    assert bench.scope.due_at_s() == pytest.approx(1.5)
    bench.now_s = 1.5
    assert b"".join(reply.data for reply in bench.scope.due(bench.now_s)) == b"1\n"


def test_without_a_picture_there_are_no_data(bench: Bench):
    bench.tell("TRIG:SWE NORM", "TRIG:LEV 3", "SING")
    assert bench.send("WAV:DATA?") == b""
    assert bench.errors().startswith("-230")


def test_a_trigger_event_is_told_once(bench: Bench):
    bench.tell("DIG CHAN1")
    assert [bench.ask("TER?"), bench.ask("TER?")] == ["+1", "+0"]


def test_averaging_takes_the_noise_away(bench: Bench):
    bench.tell("CHAN4:DISP 1;SCAL 0.01", "WAV:SOUR CHAN4;FORM WORD", "DIG CHAN4")
    noisy = bench.volts()[1].std()
    bench.tell("ACQ:TYPE AVER;COUN 64")
    assert bench.volts()[1].std() < noisy / 4
    assert bench.ask("WAV:PRE?").split(",")[1:4] == ["2", "1000", "64"]


@pytest.mark.parametrize("text", ["CHAN9:SCAL 1", "CHAN1:SCAL 100", "WAV:POIN 5", "TRIG:SLOP UP", "WAV:SOUR CHAN7"])
def test_what_it_cannot_do_is_an_error(bench: Bench, text: str):
    assert bench.send(text) == b""
    assert bench.errors()[:4] in ("-114", "-222", "-224")


def test_autoscale_shows_what_moves(bench: Bench):
    bench.tell("AUT")
    assert [bench.ask(f"CHAN{number}:DISP?") for number in range(1, 5)] == ["1", "0", "1", "0"]


def test_a_wrong_model_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="DSOX1204G"):
        make_simulator("scpi-scope", model="TDS210", table=LocalTable(0))
