"""The simulated multimeters, sans-IO, on a clock that the test moves."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from duodaq.sim import LocalTable
from duodaq.sim.scpi import PROFILES, Multimeter, make


class Bench:
    """A meter, its table, and a client that waits on the meter's own clock."""

    def __init__(self, model: str = "34401A", **changes: object) -> None:
        self.table = LocalTable(3, shutter_open=True)
        self.meter = Multimeter(replace(PROFILES[model], **changes), self.table, seed=1)
        self.meter.open_session(0, 0.0)
        self.now_s = 0.0

    def say(self, text: str, client: int = 0, pending: int = 0) -> bytes:
        """What comes back at once."""
        out = self.meter.feed(text.encode() + b"\n", self.now_s, client, pending)
        return b"".join(reply.data for reply in out)

    def ask(self, text: str) -> str:
        """What comes back, at the time it comes."""
        out = self.say(text)
        while not out.endswith(b"\n") and (at_s := self.meter.due_at_s()) is not None:
            self.now_s = max(at_s, self.now_s)
            out += b"".join(reply.data for reply in self.meter.due(self.now_s))
        return out.decode("latin-1").removesuffix("\n")

    def errors(self) -> list[int]:
        found = self.ask("SYST:ERR:ALL?").split('",')
        return [int(entry.split(",")[0]) for entry in found if not entry.startswith("+0")]


@pytest.fixture
def old() -> Bench:
    return Bench("34401A")


@pytest.fixture
def new() -> Bench:
    return Bench("34465A")


def test_each_model_says_who_it_is(old: Bench, new: Bench) -> None:
    assert old.ask("*IDN?").startswith("HEWLETT-PACKARD,34401A,")
    assert new.ask("*IDN?").startswith("Keysight Technologies,34465A,")
    assert all(len(bench.ask("*IDN?")) <= 72 for bench in (old, new))
    assert new.ask("*OPT?") == "DIG,MEM"
    assert int(new.ask("SYST:LFR?")) == 50


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="34401A, 34465A"):
        make("34411A", LocalTable(0))


def test_several_queries_answer_on_one_line(old: Bench) -> None:
    assert old.ask("FUNC?;:TRIG:SOUR?;COUN?") == '"VOLT";IMM;+1.00000000E+00'


def test_an_undefined_query_says_nothing_and_is_queued(old: Bench) -> None:
    old.ask("*CLS")
    assert old.say("NO:SUCH?") == b""
    assert old.ask("*ESR?") == "32"
    assert old.ask("SYST:ERR?") == '-113,"Undefined header"'


def test_a_command_error_ends_the_message_an_execution_error_does_not(old: Bench) -> None:
    assert old.ask("VOLT:NPLC?;NOSUCH;NPLC?") == "+1.00000000E+01"
    assert old.ask("VOLT:RANG 5000;NPLC?") == "+1.00000000E+01"
    assert old.errors() == [-113, -222]


@pytest.mark.parametrize(("number", "on"), [("1E999", "1"), ("-1E999", "1"), ("0.4", "0"), ("0.6", "1")])
def test_a_boolean_is_any_number_that_does_not_round_to_zero(old: Bench, number: str, on: str) -> None:
    assert old.ask(f"ZERO:AUTO {number};AUTO?") == on


def test_nothing_may_follow_idn_on_the_34401a(old: Bench, new: Bench) -> None:
    assert old.ask("*IDN?;FUNC?") == PROFILES["34401A"].identity
    assert old.errors() == [-440]
    assert new.ask("*IDN?;FUNC?") == PROFILES["34465A"].identity + ';"VOLT"'


@pytest.mark.parametrize(("nplc", "seconds"), [(0.02, 0.0004), (1, 0.02), (10, 0.2), (100, 2.0)])
def test_a_reading_takes_its_power_line_cycles(old: Bench, nplc: float, seconds: float) -> None:
    old.ask(f"VOLT:NPLC {nplc}")
    old.ask("READ?")
    assert old.now_s == pytest.approx(seconds + PROFILES["34401A"].overhead_s)


def test_unpaced_readings_take_no_time(old: Bench) -> None:
    old.meter.paced = False
    old.ask("VOLT:NPLC 100;:SAMP:COUN 100")
    assert len(old.ask("READ?").split(",")) == 100
    assert old.now_s < 0.001


def test_the_reading_is_the_photodiode_within_the_noise(old: Bench) -> None:
    old.ask("VOLT:RANG 10;:SAMP:COUN 200;:VOLT:NPLC 1")
    values = [float(text) for text in old.ask("READ?").split(",")]
    expected = old.table.truth().power_w * 1000.0
    assert sum(values) / 200 == pytest.approx(expected, rel=2e-4)
    old.table.set_shutter(False)
    assert abs(float(old.ask("SAMP:COUN 1;:READ?"))) < 1e-3


def test_more_cycles_make_less_noise() -> None:
    def spread(nplc: float) -> float:
        bench = Bench("34401A")
        bench.table.set_shutter(False)
        bench.ask(f"VOLT:RANG 1000;NPLC {nplc};:SAMP:COUN 200")
        values = [float(text) for text in bench.ask("READ?").split(",")]
        return (sum(value * value for value in values) / 200) ** 0.5

    assert spread(0.02) == pytest.approx(1000 * 2.5e-5, rel=0.25)
    assert spread(10) == pytest.approx(1000 * 3e-7, rel=0.25)


def test_the_seed_makes_the_noise() -> None:
    assert Bench().ask("READ?") == Bench().ask("READ?")


def test_ranges_have_limits_and_hold_what_is_asked_for(old: Bench) -> None:
    assert old.ask("VOLT:RANG? MIN;RANG? MAX") == "+1.00000000E-01;+1.00000000E+03"
    assert old.ask("VOLT:RANG 12;RANG?") == "+1.00000000E+02"
    assert old.ask("VOLT:RANG:AUTO?") == "0"
    assert old.ask("VOLT:RANG 200 mV;RANG?") == "+1.00000000E+00"
    old.say("VOLT:RANG 1001")
    old.say("VOLT:RANG -1")
    old.say("VOLT:RANG 1 A")
    assert old.errors() == [-222, -222, -131]


def test_overload_reads_9_9e37_and_is_questionable(old: Bench) -> None:
    old.ask("STAT:QUES:ENAB 1")
    assert old.ask("VOLT:RANG 0.1;:READ?") == "+9.90000000E+37"
    assert int(old.ask("*STB?")) & 8
    assert old.ask("STAT:QUES?") == "+1"
    assert float(old.ask("VOLT:RANG:AUTO ON;:READ?")) < 4


def test_autorange_picks_the_smallest_range_that_holds_the_input(old: Bench) -> None:
    old.ask("READ?")
    assert old.ask("VOLT:RANG?") == "+1.00000000E+01"
    old.table.set_shutter(False)
    old.ask("READ?")
    assert old.ask("VOLT:RANG?") == "+1.00000000E-01"


def test_configure_sets_function_range_and_resolution(old: Bench) -> None:
    assert old.ask("CONF:VOLT:DC 10,0.001;:CONF?") == '"VOLT +1.000000E+01,+1.000000E-03"'
    assert old.ask("CONF:RES 5E3;:FUNC?;:RES:RANG?") == '"RES";+1.00000000E+04'
    old.say("CONF:VOLT:DC DEF,0.001")
    assert old.errors() == [-221]


@pytest.mark.parametrize("model", ["34401A", "34465A"])
def test_every_function_is_selected_measured_and_told(model: str) -> None:
    bench = Bench(model)
    bench.meter.paced = False
    for function in PROFILES[model].functions:
        header = function.header.replace("[", "").replace("]", "")
        bench.ask(f'FUNC "{header}"')
        assert bench.ask("FUNC?") == f'"{function.name}"'
        float(bench.ask(f"MEAS:{header}?"))
        assert function.name in bench.ask("CONF?")
    assert bench.errors() == []


@pytest.mark.parametrize("model", ["34401A", "34465A"])
def test_every_header_takes_any_kind_of_parameter_in_either_form(model: str) -> None:
    bench = Bench(model)
    bench.meter.paced = False
    for command in bench.meter._tree.commands:
        header = command.pattern.replace("[", "").replace("]", "")
        for text in ("", " MIN", " MAX", " DEF", " 1", " ON", ' "VOLT"', " #13abc", " (@1)", " 1,2,3,4,5"):
            bench.say(header + text)
            bench.say(header + "?" + text)
            bench.meter.device_clear()
    assert bench.ask("*RST;:FUNC?") == '"VOLT"'


def test_functions_of_the_newer_model_are_unknown_to_the_older(old: Bench) -> None:
    old.say("MEAS:CAP?")
    old.say('FUNC "TEMP"')
    old.say("R?")
    old.say("FORM REAL")
    assert old.errors() == [-113, -224, -113, -113]


def test_a_bus_trigger_is_waited_for_and_each_takes_its_samples(old: Bench) -> None:
    old.ask("TRIG:SOUR BUS;COUN 2;:SAMP:COUN 3;:INIT")
    assert old.ask("STAT:OPER:COND?") == "+32"
    old.say("*TRG")
    assert old.ask("STAT:OPER:COND?") == "+16"
    assert old.ask("DATA:POIN?") == "+0"
    old.now_s += 10
    assert old.ask("DATA:POIN?;:STAT:OPER:COND?") == "+3;+32"
    assert len(old.ask("*TRG;:FETC?").split(",")) == 6


def test_triggers_nobody_waits_for_are_ignored(old: Bench) -> None:
    old.say("*TRG")
    old.say("TRIG:SOUR BUS;:INIT;:INIT")
    old.say("READ?")
    assert old.errors() == [-211, -213, -214]


def test_an_external_trigger_ends_the_wait(old: Bench) -> None:
    old.ask("TRIG:SOUR EXT")
    assert old.say("READ?") == b""
    assert old.meter.due_at_s() is None
    old.meter.external_trigger(old.now_s)
    at_s = old.meter.due_at_s()
    assert at_s is not None
    assert len(old.meter.due(at_s)) == 1


def test_the_trigger_delay_comes_before_the_reading(old: Bench) -> None:
    old.ask("VOLT:NPLC 1;:TRIG:DEL 0.5")
    assert old.ask("TRIG:DEL:AUTO?") == "0"
    old.ask("READ?")
    assert old.now_s == pytest.approx(0.52, abs=0.002)


def test_memory_holds_512_readings_and_no_more(old: Bench) -> None:
    old.meter.paced = False
    old.ask("SAMP:COUN 512;:INIT")
    assert old.ask("DATA:POIN?") == "+512"
    old.say("SAMP:COUN 513;:INIT")
    assert old.errors() == [531]
    assert len(old.ask("READ?").split(",")) == 513


def test_fetch_without_readings_is_stale(old: Bench) -> None:
    old.say("FETC?")
    assert old.errors() == [-230]


def test_a_changed_setting_ends_the_measurement(old: Bench) -> None:
    old.say("SAMP:COUN 100;:INIT")
    assert old.ask("STAT:OPER:COND?") == "+16"
    old.say("VOLT:NPLC 1")
    assert old.ask("STAT:OPER:COND?;:DATA:POIN?") == "+0;+0"


def test_operation_complete_waits_for_the_measurement(old: Bench) -> None:
    old.say("*CLS;*ESE 1;*SRE 32;:VOLT:NPLC 10;:SAMP:COUN 5;:INIT;*OPC")
    assert old.ask("*ESR?") == "0"
    assert old.ask("*OPC?") == "1"
    assert old.now_s == pytest.approx(1.0, rel=0.01)
    assert old.meter.report()["service_requests"] == 1
    assert int(old.ask("*STB?")) & 96 == 96
    assert old.ask("*ESR?") == "1"


def test_wai_holds_back_the_rest_of_the_message(old: Bench) -> None:
    assert old.ask("SAMP:COUN 5;:INIT;*WAI;:DATA:POIN?") == "+5"


def test_status_registers_of_both_groups_are_set_read_and_preset(old: Bench) -> None:
    for group in ("OPER", "QUES"):
        old.ask(f"STAT:{group}:ENAB 48;PTR 16;NTR 32")
        assert old.ask(f"STAT:{group}:ENAB?;PTR?;NTR?") == "+48;+16;+32"
    old.ask("STAT:PRES")
    assert old.ask("STAT:OPER:ENAB?;PTR?;NTR?") == "+0;+32767;+0"


def test_reset_touches_neither_status_nor_enables(old: Bench) -> None:
    old.ask("*ESE 60;*SRE 32;:VOLT:NPLC 1;:BAD")
    old.ask("*RST")
    assert old.ask("*ESE?;*SRE?;:VOLT:NPLC?") == "60;32;+1.00000000E+01"
    assert old.errors() == [-113]


def test_power_on_is_told_once_and_settings_are_gone(old: Bench) -> None:
    assert old.ask("*ESR?;*ESR?") == "128;0"
    old.ask("VOLT:NPLC 1;*ESE 4")
    old.meter.power_cycle(old.now_s)
    assert old.ask("*ESR?;*ESE?;:VOLT:NPLC?") == "128;0;+1.00000000E+01"
    old.ask("*PSC 0;*ESE 4")
    old.meter.power_cycle(old.now_s)
    assert old.ask("*ESE?") == "4"


def test_the_error_queue_overflows_after_twenty(old: Bench) -> None:
    for _ in range(25):
        old.say("BAD")
    assert old.ask("SYST:ERR:COUN?") == "+20"
    assert old.errors() == [-113] * 19 + [-350]


def test_a_message_too_long_for_the_input_buffer_is_an_overrun() -> None:
    bench = Bench(input_limit=64)
    bench.say("x" * 100)
    assert bench.errors() == [-363]


def test_a_device_clear_frees_a_meter_that_waits_for_ever(old: Bench) -> None:
    old.ask("TRIG:SOUR EXT")
    assert old.say("READ?") == b""
    assert old.say("\x03") == b""
    assert old.ask("FUNC?") == '"VOLT"'


def test_a_query_before_the_last_reply_was_fetched_is_interrupted(old: Bench) -> None:
    old.say("FUNC?", pending=7)
    assert old.meter.report()["interleavings"] == 1
    assert old.errors() == [-410]


def test_a_message_into_a_running_read_is_interleaved_and_answered_after_it(old: Bench) -> None:
    old.say("READ?")
    assert old.say("FUNC?") == b""
    assert old.meter.report()["interleavings"] == 1
    at_s = old.meter.due_at_s()
    assert at_s is not None
    first, second = [reply.data for reply in old.meter.due(at_s)]
    assert first.startswith(b"+")
    assert second == b'"VOLT"\n'


def test_replies_go_to_the_client_that_asked(new: Bench) -> None:
    new.meter.open_session(1, 0.0)
    out = new.meter.feed(b"READ?\n", 0.0, 1)
    assert out == []
    out = new.meter.due(1.0)
    assert [reply.client for reply in out] == [1]


def test_a_client_that_hangs_up_takes_its_measurement_along(new: Bench) -> None:
    new.meter.open_session(1, 0.0)
    new.ask("TRIG:SOUR EXT")
    new.meter.feed(b"READ?\n", 0.0, 1)
    new.meter.close_session(1)
    assert new.ask("FUNC?") == '"VOLT"'


def test_real_format_sends_blocks_in_the_order_asked_for(new: Bench) -> None:
    new.ask("SAMP:COUN 3;:FORM REAL,64")
    raw = new.ask("READ?").encode("latin-1")
    assert raw[:4] == b"#224"
    assert all(0.5 < value < 4 for value in struct.unpack(">3d", raw[4:]))
    raw = new.ask("FORM:BORD SWAP;:FORM REAL,32;:FETC?").encode("latin-1")
    assert raw[:4] == b"#212"
    assert all(0.5 < value < 4 for value in struct.unpack("<3f", raw[4:]))
    assert new.ask("FORM?") == "REAL,32"


def test_stored_readings_are_taken_out_by_r_and_remove(new: Bench) -> None:
    new.ask("SAMP:COUN 10;:INIT;*WAI")
    assert len(new.ask("DATA:REM? 3").split(",")) == 3
    block = new.ask("R? 2")
    assert block[:2] == "#2"
    assert new.ask("DATA:POIN?") == "+5"
    assert float(new.ask("DATA:LAST?")) == pytest.approx(1.84, rel=0.5)
    new.say("DATA:REM? 6")
    assert new.errors() == [-230]


def test_a_long_reading_is_sent_in_pieces_and_is_whole(new: Bench) -> None:
    new.ask("VOLT:NPLC 0.02;:SAMP:COUN 5000")
    values = new.ask("READ?").split(",")
    assert len(values) == 5000
    assert all(0.5 < float(value) < 4 for value in values)


def test_deep_memory_overwrites_the_oldest() -> None:
    bench = Bench("34465A", memory=10)
    bench.meter.paced = False
    bench.ask("SAMP:COUN 25;:INIT;*WAI")
    assert bench.ask("DATA:POIN?") == "+10"
    assert bench.meter.report()["readings_lost"] == 15


def test_the_sample_timer_spaces_readings(new: Bench) -> None:
    new.ask("VOLT:NPLC 1;:SAMP:SOUR TIM;TIM 0.5;COUN 3")
    new.ask("READ?")
    assert new.now_s == pytest.approx(1.02, abs=0.005)


def test_local_mode_refuses_measurements_where_the_instrument_insists() -> None:
    bench = Bench(needs_remote=True)
    bench.say("READ?")
    assert bench.errors() == [550]
    bench.say("SYST:REM")
    float(bench.ask("READ?"))


def test_the_display_cuts_text_to_its_width(old: Bench) -> None:
    assert old.ask('DISP:TEXT "MORE THAN TWELVE";TEXT?') == '"MORE THAN TW"'
    assert old.ask("DISP:TEXT:CLE;:DISP:TEXT?") == '""'


def test_too_many_or_too_few_parameters_change_nothing(old: Bench) -> None:
    old.say("VOLT:NPLC 1,2")
    old.say("VOLT:NPLC")
    old.say("*RST 1")
    assert old.errors() == [-108, -109, -108]
    assert old.ask("VOLT:NPLC?") == "+1.00000000E+01"


def test_the_report_counts_what_was_sent(old: Bench) -> None:
    old.ask("SAMP:COUN 3;:READ?")
    old.ask("INIT;:FETC?")
    report = old.meter.report()
    assert report["produced"] == {"reading": 6}
    assert report["readings"] == {"VOLT": 6}
    assert report["exchanges"] == 2
