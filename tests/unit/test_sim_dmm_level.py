"""The simulated 34465A, triggered by its own input; sans-IO, on a clock that the test moves."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable
from duodaq.sim.scpi import PROFILES, Multimeter


class Bench:
    """A meter before a laser whose shutter the test opens."""

    def __init__(self, model: str = "34465A") -> None:
        self.table = LocalTable(3)
        self.meter = Multimeter(PROFILES[model], self.table, seed=1)
        self.meter.open_session(0, 0.0)
        self.now_s = 0.0

    def say(self, text: str) -> str:
        out = self.meter.feed(text.encode() + b"\n", self.now_s, 0, 0)
        return b"".join(reply.data for reply in out).decode().removesuffix("\n")

    def after(self, seconds: float) -> str:
        """What comes within that time."""
        self.now_s += seconds
        out = b""
        while (at_s := self.meter.due_at_s()) is not None and at_s <= self.now_s:
            out += b"".join(reply.data for reply in self.meter.due(at_s))
        return out.decode().removesuffix("\n")


@pytest.mark.parametrize("paced", [True, False])
def test_the_input_that_passes_the_level_starts_the_measurement_and_what_was_before_it_is_kept(paced: bool) -> None:
    bench = Bench()
    bench.meter.paced = paced
    bench.say("VOLT:RANG 10;NPLC 0.2;:SAMP:COUN 6;:SAMP:COUN:PRET 2")
    bench.say("TRIG:SOUR INT;SLOP POS;LEV 0.5")
    assert bench.say("TRIG:SOUR?;LEV?;:SAMP:COUN:PRET?") == "INT;+5.00000000E-01;+2"
    assert bench.say("READ?") == ""
    assert bench.after(1.0) == ""
    bench.table.set_shutter(True)
    values = [float(text) for text in bench.after(1.0).split(",")]
    assert [value > 0.5 for value in values] == [False, False, True, True, True, True]
    assert bench.say("SYST:ERR?") == '+0,"No error"'


def test_a_falling_slope_is_not_met_by_a_rise() -> None:
    bench = Bench()
    bench.say("VOLT:RANG 10;NPLC 0.2;:TRIG:SOUR INT;SLOP NEG;LEV 0.5;:READ?")
    bench.table.set_shutter(True)
    assert bench.after(1.0) == ""
    bench.table.set_shutter(False)
    assert float(bench.after(1.0)) < 0.5


def test_reset_takes_level_and_samples_before_back_and_the_older_model_knows_neither() -> None:
    bench = Bench()
    bench.say("TRIG:LEV 3;:SAMP:COUN:PRET 5;*RST")
    assert bench.say("TRIG:LEV?;:SAMP:COUN:PRET?;PRET? MAX") == "+0.00000000E+00;+0;+1999999"
    old = Bench("34401A")
    for text, code in {"TRIG:LEV?": "-113", "SAMP:COUN:PRET?": "-113", "TRIG:SOUR INT": "-224"}.items():
        assert old.say(text) == ""
        assert old.say("SYST:ERR?").startswith(code)
