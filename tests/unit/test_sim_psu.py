"""The simulated power supplies: levels, loads, protection, and the two ways of naming a channel."""

from __future__ import annotations

import pytest

from duodaq.sim import LocalTable, make_simulator
from duodaq.sim.scpi import make_supply


class Bench:
    def __init__(self, model: str | None = None) -> None:
        self.supply = make_supply(model, LocalTable(0))
        self.supply.paced = False
        self.supply.open_session(1, 0.0)

    def send(self, text: str) -> str:
        return b"".join(reply.data for reply in self.supply.feed(f"{text}\n".encode(), 1.0, 1)).decode()

    def ask(self, text: str) -> str:
        said = self.send(text)
        assert said.endswith("\n"), self.errors()
        return said.removesuffix("\n")

    def tell(self, *texts: str) -> None:
        for text in texts:
            assert self.send(text) == ""
            assert self.errors() == '0,"No error"'

    def errors(self) -> str:
        return self.ask("SYST:ERR:ALL?").replace("+", "")

    def numbers(self, text: str) -> list[float]:
        return [float(number) for number in self.ask(text).split(",")]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def old() -> Bench:
    return Bench("E3631A")


def test_it_is_off_at_zero_when_power_comes(bench: Bench):
    assert bench.ask("OUTP? (@1:3)") == "0,0,0"
    assert bench.numbers("VOLT? (@1:3)") == [0, 0, 0]


def test_volts_and_amperes_follow_the_load(bench: Bench):
    bench.tell("VOLT 3.3, (@1)", "CURR 1, (@1)", "OUTPut 1, (@1)")
    assert bench.numbers("MEASure:VOLTage? (@1)") == pytest.approx([3.3], abs=0.01)
    assert bench.numbers("MEAS:CURR? (@1)") == pytest.approx([0.33], abs=0.01)
    assert bench.numbers("MEAS:VOLT? (@2,3)") == pytest.approx([0, 0], abs=0.01)


def test_at_its_current_limit_it_gives_less_voltage_and_says_so(bench: Bench):
    bench.tell("VOLT 5,(@1)", "CURR 0.2,(@1)", "OUTP ON,(@1)")
    assert bench.numbers("MEAS:VOLT? (@1)") == pytest.approx([2.0], abs=0.01)
    assert bench.numbers("MEAS:CURR? (@1)") == pytest.approx([0.2], abs=0.01)
    assert int(bench.ask("STAT:QUES:COND?")) & 3 == 1
    bench.tell("CURR 1,(@1)")
    assert int(bench.ask("STAT:QUES:COND?")) & 3 == 2


def test_overvoltage_switches_off_and_keeps_off_until_it_is_cleared(bench: Bench):
    bench.tell("VOLT:PROT 4,(@1)", "VOLT 3,(@1)", "OUTP ON,(@1)", "VOLT 5,(@1)")
    assert bench.ask("OUTP? (@1)") == "0"
    assert bench.ask("VOLT:PROT:TRIP? (@1:2)") == "1,0"
    assert int(bench.ask("STAT:QUES:COND?")) & 512
    assert bench.send("OUTP ON,(@1)") == ""
    assert "-221" in bench.errors()
    bench.tell("VOLT 3,(@1)", "OUTP:PROT:CLE (@1)", "OUTP ON,(@1)")
    assert bench.numbers("MEAS:VOLT? (@1)") == pytest.approx([3], abs=0.01)


def test_overvoltage_protection_can_be_switched_off(bench: Bench):
    bench.tell("VOLT:PROT 4,(@1)", "VOLT:PROT:STAT OFF,(@1)", "VOLT 5,(@1)", "OUTP ON,(@1)")
    assert bench.ask("OUTP? (@1)") == "1"


def test_overcurrent_protection_trips_where_it_would_limit(bench: Bench):
    bench.tell("CURR:PROT:STAT ON,(@1)", "CURR 0.1,(@1)", "VOLT 5,(@1)", "OUTP ON,(@1)")
    assert bench.ask("CURR:PROT:TRIP? (@1)") == "1"
    assert bench.ask("OUTP? (@1)") == "0"


@pytest.mark.parametrize("text", ["VOLT 7,(@1)", "CURR 6,(@1)", "VOLT -1,(@1)", "VOLT 1,(@4)", "CURR 2,(@2)"])
def test_beyond_its_limits_it_is_refused_and_stays(bench: Bench, text: str):
    assert bench.send(text) == ""
    assert bench.errors().startswith("-222")
    assert bench.numbers("VOLT? (@1:3)") == [0, 0, 0]


def test_limits_can_be_asked_for(bench: Bench):
    assert bench.numbers("VOLT? MAX,(@1,2)") == [6.18, 25.75]
    assert bench.numbers("CURR? MIN,(@1)") == [0]
    bench.tell("VOLT MAX,(@2)", "INST:NSEL 2")
    assert bench.numbers("VOLT?") == [25.75]


def test_a_list_sets_several_and_a_selection_is_what_no_list_means(bench: Bench):
    bench.tell("VOLT 1.5,(@1,3)", "INST:NSEL 3;:VOLT 2.5")
    assert bench.numbers("VOLT? (@1:3)") == [1.5, 0, 2.5]
    assert bench.ask("INST?") == "CH3"


def test_the_older_one_selects_and_switches_all_at_once(old: Bench):
    old.tell("INST:NSEL 2;:VOLT 12", "INST:SEL N25V;:VOLT -5", "APPL P6V,3.0,1.0", "OUTPut 1")
    assert old.ask("INST:SEL?;:OUTP?") == "N25V;1"
    assert old.numbers("MEAS:VOLT?") == pytest.approx([-5], abs=0.01)
    assert old.ask("INST:NSEL 1;:MEAS:VOLT?").startswith("+3.0") or old.ask("MEAS:VOLT?").startswith("+2.99")
    assert old.supply.report()["outputs"]["P25V"]["on"]
    old.tell("OUTP OFF")
    assert not any(output["on"] for output in old.supply.report()["outputs"].values())


def test_the_older_one_knows_no_lists_and_no_overvoltage(old: Bench):
    assert old.send("VOLT 1,(@1)") == ""
    assert old.errors().startswith("-108")
    assert old.send("VOLT:PROT 5") == ""
    assert old.errors().startswith("-113")


def test_tracking_sets_the_pair_to_opposite_voltages(old: Bench):
    old.tell("OUTP:TRAC ON", "INST:NSEL 2;:VOLT 7")
    assert old.numbers("INST:NSEL 3;:VOLT?") == [-7]


def test_a_reset_and_a_power_cycle_switch_off(bench: Bench):
    for off in (lambda: bench.tell("*RST"), lambda: bench.supply.power_cycle(2.0)):
        bench.tell("VOLT 3,(@1)", "OUTP ON,(@1)")
        off()
        bench.supply.open_session(1, 2.0)
        assert bench.supply.report()["outputs"]["CH1"] == {"on": False, "volts": 0.0, "tripped": ""}


def test_a_wrong_model_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="E36312A, E3631A"):
        make_simulator("scpi-psu", model="PS2000", table=LocalTable(0))
