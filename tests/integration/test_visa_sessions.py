"""PyVISA on shared ports: messages, time-outs and errors, from each place where a program may be."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from duodaq.clock import Deadline, block, monotonic_s
from duodaq.errors import PortBusyError
from duodaq.model import PortDefinition
from duodaq.ports import lend
from duodaq.testing._scripted_port import Answer, ScriptedTransport
from duodaq.testing._visa_lab import BlockCodec, VisaLab

pyvisa = pytest.importorskip("pyvisa")
from pyvisa import constants  # noqa: E402 - it is an extra
from pyvisa.constants import ResourceAttribute, StatusCode  # noqa: E402 - it is an extra

PAYLOAD = b"one\ntwo;#3,\x00\xff"


def device(line: bytes) -> bytes | Answer | list[Answer] | None:
    word = line.rstrip(b"\r")
    if word == b"SLOW?":
        return Answer(b"SLOW=late\n", 0.15)
    if word == b"BLOCK?":
        return [Answer(b"#2%02d" % len(PAYLOAD) + PAYLOAD[:5]), Answer(PAYLOAD[5:] + b"\n", 0.01)]
    if word == b"LONG?":
        return b"x" * 5000 + b"\n"
    if word == b"LIST?":
        return b"1.5,2.5,-3\n"
    if word == b"*STB?":
        return b"68\n"
    if word == b"ODD?":
        return b"two\nlines\n"
    return word[:-1] + b"=ok\n" if word.endswith(b"?") and word != b"MUTE?" else None


class Lab(VisaLab):
    """Three ports: with a codec, without one, and a serial one."""

    def __init__(self, place: Any) -> None:
        super().__init__(place)
        self.line, self.raw, self.serial = (ScriptedTransport(device) for _ in range(3))
        quiet: dict[str, Any] = {"quiet_s": 0.02}
        self.add(
            PortDefinition("p", tcp="10.0.0.7:5025", codec="block", timeout_s=1.0, options=quiet),
            BlockCodec(),
            self.line,
        )
        self.add(PortDefinition("raw", tcp="10.0.0.8:5025", timeout_s=1.0, idle_ms=30, options=quiet), None, self.raw)
        line = {"path": "/dev/nowhere", "baud": 19200, "rtscts": True}
        self.add(PortDefinition("s", serial=line, codec="block", options=quiet), BlockCodec(), self.serial)
        self.serve()
        self.manager = pyvisa.ResourceManager(self.address)
        self.manager.list_resources()

    def open(self, name: str = "p", **settings: Any) -> Any:
        return self.manager.open_resource(name, **{"read_termination": "\n", "write_termination": "\n", **settings})

    def close(self) -> None:
        self.manager.close()
        super().close()


@pytest.fixture(scope="module", params=["manager", "worker", "outside"])
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(request.param)
    yield made
    made.close()


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    shared_lab.line.lines.clear()
    yield shared_lab
    for resource in shared_lab.manager.list_opened_resources():
        resource.close()
    shared_lab.exchange(b"END?\n")
    assert [status.holder for status in shared_lab.broker.status()] == [None, None, None]


@pytest.fixture
def outside() -> Iterator[Lab]:
    made = Lab("outside")
    yield made
    made.close()


def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        block(0.002)


def code_of(work: Any) -> StatusCode:
    with pytest.raises(pyvisa.VisaIOError) as caught:
        work()
    return StatusCode(caught.value.error_code)


# --- names


def test_every_port_is_listed_by_its_address_and_by_its_name(lab: Lab) -> None:
    everything = lab.manager.list_resources("?*")
    assert everything == (
        "TCPIP0::10.0.0.7::5025::SOCKET", "duodaq::p::INSTR", "TCPIP0::10.0.0.8::5025::SOCKET", "duodaq::raw::INSTR",
        "ASRL/dev/nowhere::INSTR", "duodaq::s::INSTR",
    )  # fmt: skip
    assert lab.manager.list_resources() == tuple(name for name in everything if name.endswith("::INSTR"))


@pytest.mark.parametrize(
    "name",
    ["p", "P", "duodaq::p::INSTR", "DUODAQ0::p", "TCPIP0::10.0.0.7::5025::SOCKET", "tcpip::10.0.0.7::5025::SOCKET"],
)
def test_a_port_is_opened_by_any_of_its_names(lab: Lab, name: str) -> None:
    resource = lab.open(name)
    assert resource.query("A?") == "A=ok"
    assert resource.resource_name == "TCPIP0::10.0.0.7::5025::SOCKET"
    assert type(resource).__name__ == "TCPIPSocket"
    assert resource.resource_info.alias == "p"


def test_a_name_that_is_no_port_is_not_found_and_one_that_is_no_name_is_invalid(lab: Lab) -> None:
    with pytest.raises(pyvisa.VisaIOError) as missing:
        lab.manager.open_resource("duodaq::q::INSTR")
    assert missing.value.error_code == StatusCode.error_resource_not_found
    assert "there are: p, raw, s" in str(missing.value)
    assert (
        code_of(lambda: lab.manager.open_resource("TCPIP0::10.9.9.9::1::SOCKET")) == StatusCode.error_resource_not_found
    )
    assert code_of(lambda: lab.manager.open_resource("no such thing")) == StatusCode.error_invalid_resource_name


# --- messages


def test_a_query_is_answered_whatever_else_is_said(lab: Lab) -> None:
    resource = lab.open()
    assert resource.query("A?") == "A=ok"
    assert resource.write("SET 1") == len("SET 1\n")
    assert resource.query("B?") == "B=ok"
    assert lab.line.lines == [b"A?", b"SET 1", b"B?"]


def test_the_statuses_of_a_read_say_why_it_ended(lab: Lab) -> None:
    resource = lab.open()
    resource.write("A?")
    with resource.ignore_warning(StatusCode.success_max_count_read):
        assert lab.manager.visalib.read(resource.session, 2) == (b"A=", StatusCode.success_max_count_read)
    assert lab.manager.visalib.read(resource.session, 99) == (b"ok\n", StatusCode.success_termination_character_read)
    resource.read_termination = None
    resource.write("A?")
    assert lab.manager.visalib.read(resource.session, 99) == (b"A=ok\n", StatusCode.success)


def test_a_message_ends_at_its_end_where_no_character_ends_it(lab: Lab) -> None:
    resource = lab.open(read_termination=None)
    resource.write("A?")
    resource.write("B?")
    assert [resource.read(), resource.read()] == ["A=ok\n", "B=ok\n"]


def test_with_the_end_suppressed_only_the_character_or_the_count_ends_a_read(lab: Lab) -> None:
    resource = lab.open(read_termination="o", timeout=80)
    resource.set_visa_attribute(ResourceAttribute.suppress_end_enabled, constants.VI_TRUE)
    resource.write("A?")
    assert resource.read_raw() == b"A=o"
    assert code_of(resource.read_raw) == StatusCode.error_timeout
    assert resource.read_bytes(2) == b"k\n"


def test_blocks_come_whole_also_in_small_chunks_and_with_terminators_inside(lab: Lab) -> None:
    resource = lab.open(chunk_size=4)
    resource.read_termination = None
    assert resource.query_binary_values("BLOCK?", "B", container=bytes) == PAYLOAD
    resource.read_termination = "\n"
    assert resource.query("LONG?") == "x" * 5000
    assert resource.query_ascii_values("LIST?") == [1.5, 2.5, -3]


def test_blocks_and_lists_are_written_as_one_command(lab: Lab) -> None:
    resource = lab.open()
    resource.write_binary_values("DATA ", [1, 2, 3], "B")
    resource.write_ascii_values("LIST ", [1, 2], "d")
    assert resource.query("A?") == "A=ok"
    assert lab.line.lines == [b"DATA #13\x01\x02\x03", b"LIST 1,2", b"A?"]


def test_a_command_without_its_end_is_sent_when_the_end_or_a_read_comes(lab: Lab) -> None:
    resource = lab.open()
    resource.write_raw(b"A")
    assert lab.exchange(b"B?\n") == b"B=ok\n"
    resource.write_raw(b"?")
    resource.write_raw(b"\n")
    assert resource.read() == "A=ok"
    assert lab.line.lines == [b"B?", b"A?"]


def test_a_reply_that_is_read_late_blocks_nobody(lab: Lab) -> None:
    resource = lab.open()
    resource.write("A?")
    began = monotonic_s()
    for _ in range(20):
        assert lab.exchange(b"B?\n") == b"B=ok\n"
    assert monotonic_s() - began < 2.0
    assert resource.read() == "A=ok"


def test_the_status_byte_is_asked_for_and_disturbs_no_reply(lab: Lab) -> None:
    resource = lab.open()
    resource.write("A?")
    assert resource.read_stb() == 68
    assert resource.stb == 68
    assert resource.read() == "A=ok"
    assert code_of(lab.open("raw").read_stb) == StatusCode.error_nonsupported_operation


def test_a_trigger_is_a_command_where_the_codec_knows_it(lab: Lab) -> None:
    resource = lab.open()
    resource.assert_trigger()
    assert resource.query("A?") == "A=ok"
    assert lab.line.lines == [b"*TRG", b"A?"]
    assert code_of(lab.open("raw").assert_trigger) == StatusCode.error_nonsupported_operation


def test_a_port_without_a_codec_ends_a_message_with_silence(lab: Lab) -> None:
    resource = lab.open("raw", read_termination=None)
    assert resource.query("A?") == "A=ok\n"
    assert resource.query("ODD?") == "two\nlines\n"
    resource.read_termination = "\n"
    assert [resource.query("ODD?"), resource.read()] == ["two", "lines"]


# --- time-outs


def test_what_comes_after_the_time_out_can_be_read_until_something_is_written(lab: Lab) -> None:
    resource = lab.open(timeout=40)
    resource.write("SLOW?")
    assert code_of(resource.read) == StatusCode.error_timeout
    resource.timeout = 2000
    assert resource.read() == "SLOW=late"
    resource.timeout = 40
    resource.write("SLOW?")
    assert code_of(resource.read) == StatusCode.error_timeout
    resource.timeout = 2000
    assert resource.query("A?") == "A=ok"


def test_nothing_is_read_where_nothing_was_asked(lab: Lab) -> None:
    resource = lab.open(timeout=30)
    began = monotonic_s()
    assert code_of(resource.read) == StatusCode.error_timeout
    assert 0.02 < monotonic_s() - began < 2.0
    resource.timeout = 0
    assert code_of(resource.read) == StatusCode.error_timeout


def test_an_infinite_time_out_waits_for_the_reply(lab: Lab) -> None:
    resource = lab.open(timeout=None)
    assert resource.timeout == float("inf")
    assert resource.query("SLOW?") == "SLOW=late"


def test_a_query_that_is_never_answered_leaves_the_port_in_order(lab: Lab) -> None:
    resource = lab.open(timeout=100)
    assert code_of(lambda: resource.query("MUTE?")) == StatusCode.error_timeout
    resource.timeout = 2000
    assert resource.query("A?") == "A=ok"
    assert lab.exchange(b"B?\n") == b"B=ok\n"


def test_clear_throws_away_what_is_under_way(lab: Lab) -> None:
    resource = lab.open()
    resource.write("SLOW?")
    until(lambda: b"SLOW?" in lab.line.lines)
    resource.clear()
    assert lab.exchange(b"B?\n") == b"B=ok\n"
    assert resource.query("A?") == "A=ok"


def test_flush_throws_away_what_was_not_read(lab: Lab) -> None:
    resource = lab.open(timeout=60)
    resource.write("A?")
    lab.exchange(b"B?\n")
    resource.flush(constants.BufferOperation.discard_read_buffer)
    assert code_of(resource.read) == StatusCode.error_timeout


# --- errors


def test_a_port_that_is_held_too_long_is_busy_and_says_by_whom(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvisa_duodaq._session.LEASE_WAIT_S", 0.1)
    resource, let_go = lab.open(timeout=50), asyncio.Event()

    async def hold() -> None:
        async with lab.broker.port("p").lease("the scan"):
            await let_go.wait()

    holding = lab.thread.submit(hold())
    until(lambda: lab.broker.status()[0].holder == "the scan")
    try:
        with pytest.raises(pyvisa.VisaIOError, match="held by the scan") as busy:
            resource.query("A?")
        assert busy.value.error_code == StatusCode.error_resource_busy
    finally:
        lab.call(let_go.set)
        holding.result(5)
    resource.timeout = 2000
    assert resource.query("A?") == "A=ok"


def test_a_lost_line_is_a_lost_connection(lab: Lab) -> None:
    resource = lab.open(timeout=2000)
    resource.write("SLOW?")
    until(lambda: b"SLOW?" in lab.line.lines)
    lab.call(lab.line.unplug)
    assert code_of(resource.read) == StatusCode.error_connection_lost
    assert code_of(lambda: resource.query("A?")) == StatusCode.error_connection_lost
    lab.line.replug()
    until(lambda: lab.broker.status()[0].state == "open")
    assert resource.query("A?") == "A=ok"


def test_what_a_latched_stop_refuses_is_aborted(lab: Lab) -> None:
    resource = lab.open()
    lab.broker.latch("the test")
    try:
        with pytest.raises(pyvisa.VisaIOError, match="latched") as refused:
            resource.query("MV 1;A?")
        assert refused.value.error_code == StatusCode.error_abort
        assert resource.query("A?") == "A=ok"
    finally:
        lab.broker.reset_latch("the test")
    assert lab.line.lines == [b"A?"]


def test_a_closed_session_is_no_object_any_more(lab: Lab) -> None:
    resource = lab.open()
    number = resource.session
    resource.close()
    with pytest.raises(pyvisa.InvalidSession):
        resource.query("A?")
    library = lab.manager.visalib
    for work in (
        lambda: library.read(number, 5),
        lambda: library.write(number, b"A?\n"),
        lambda: library.clear(number),
        lambda: library.unlock(number),
        lambda: library.get_attribute(number, ResourceAttribute.timeout_value),
        lambda: library.close(number),
    ):
        assert code_of(work) == StatusCode.error_invalid_object


def test_there_are_no_events(lab: Lab) -> None:
    resource = lab.open()
    kind, how = constants.EventType.service_request, constants.EventMechanism.queue
    assert code_of(lambda: resource.enable_event(kind, how)) == StatusCode.error_nonsupported_operation
    assert code_of(lambda: resource.wait_on_event(kind, 10)) == StatusCode.error_nonsupported_operation
    assert code_of(lambda: resource.install_handler(kind, print)) == StatusCode.error_nonsupported_operation
    resource.disable_event(kind, how)
    resource.discard_events(kind, how)


# --- attributes


def test_the_line_belongs_to_the_lab_file(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    resource = lab.open("s", baud_rate=19200, data_bits=8, stop_bits=constants.StopBits.one)
    assert (resource.baud_rate, resource.flow_control) == (19200, constants.ControlFlow.rts_cts)
    with caplog.at_level("WARNING", "duodaq"):
        for name, other in (
            ("baud_rate", 9600),
            ("stop_bits", constants.StopBits.two),
            ("parity", constants.Parity.even),
        ):
            before = getattr(resource, name)
            assert code_of(lambda: setattr(resource, name, other)) == StatusCode.error_nonsupported_attribute_state  # noqa: B023 - it is called at once
            assert getattr(resource, name) == before
    assert "lab file" in caplog.text
    assert resource.query("A?") == "A=ok"


def test_the_attributes_of_the_session_are_its_own(lab: Lab) -> None:
    one, other = lab.open("s"), lab.open("s")
    one.timeout, one.end_input = 77, constants.SerialTermination.none
    one.send_end = False
    assert (other.timeout, other.end_input, other.send_end) == (
        2000,
        constants.SerialTermination.termination_char,
        True,
    )
    assert (one.timeout, one.end_input, one.send_end) == (77, constants.SerialTermination.none, False)
    assert (
        code_of(lambda: one.set_visa_attribute(ResourceAttribute.resource_name, "x"))
        == StatusCode.error_attribute_read_only
    )
    assert (
        code_of(lambda: one.get_visa_attribute(ResourceAttribute.tcpip_port)) == StatusCode.error_nonsupported_attribute
    )
    assert one.interface_type == constants.InterfaceType.asrl
    assert (one.resource_class, one.resource_manufacturer_name) == ("INSTR", "duodaq")
    assert lab.open("p").get_visa_attribute(ResourceAttribute.tcpip_port) == 5025


def test_a_serial_message_ends_with_the_character_of_its_session(lab: Lab) -> None:
    resource = lab.open("s")
    resource.read_termination = None
    resource.write("A?")
    assert lab.manager.visalib.read(resource.session, 99) == (b"A=ok\n", StatusCode.success)
    resource.end_input = constants.SerialTermination.none
    resource.timeout = 60
    resource.write("A?")
    assert code_of(resource.read) == StatusCode.error_timeout
    assert resource.read_bytes(5) == b"A=ok\n"
    resource.end_output, resource.write_termination = constants.SerialTermination.termination_char, ""
    resource.end_input, resource.timeout = constants.SerialTermination.termination_char, 2000
    assert resource.query("B?") == "B=ok\n"


# --- together


def test_queries_of_many_programs_are_never_crossed(lab: Lab) -> None:
    """Each writes first and reads later; the rest of the lab goes on between."""
    wrong: list[Any] = []

    def drive(number: int) -> None:
        resource = lab.open(timeout=20000)
        for turn in range(25):
            word = f"N{number}T{turn}"
            resource.write(f"{word}?")
            if turn % 3 == 0:
                block(0.001)
            if (got := resource.read()) != f"{word}=ok":
                wrong.append((word, got))
        resource.close()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(40):
        assert lab.exchange(b"H%d?\n" % turn, wait_s=20) == b"H%d=ok\n" % turn
    for thread in threads:
        thread.join(60)
    assert wrong == []


# --- outside alone


def test_a_lab_that_ends_loses_the_connection_and_one_that_comes_back_is_found(outside: Lab) -> None:
    resource = outside.open()
    assert resource.query("A?") == "A=ok"
    resource.write("SLOW?")
    outside.run(outside.end_server())
    assert code_of(resource.read) == StatusCode.error_connection_lost
    assert code_of(lambda: resource.query("A?")) == StatusCode.error_connection_lost
    assert code_of(outside.open) == StatusCode.error_resource_not_found
    outside.run(outside.start_server())
    again = outside.open()
    assert again.query("A?") == "A=ok"
    assert code_of(lambda: resource.query("A?")) == StatusCode.error_connection_lost


def test_a_program_outside_has_a_name_of_its_own(outside: Lab) -> None:
    resource = outside.open()
    resource.lock_excl()
    assert re.fullmatch(rf"visa:[^\[\]]+\[{os.getpid()}\]", outside.broker.status()[0].holder or "")
    with pytest.raises(PortBusyError, match=r"held by visa:.*\[\d+\]"):
        outside.exchange(b"B?\n", wait_s=0.05)


def test_no_lab_of_that_name_is_no_resource() -> None:
    manager = pyvisa.ResourceManager("no-such-lab@duodaq")
    try:
        with pytest.raises(pyvisa.VisaIOError, match="no lab"):
            manager.list_resources()
    finally:
        manager.close()


@pytest.mark.parametrize("end", ["closed", "revoked"])
def test_a_driver_closes_its_resource_though_its_line_has_ended(end: str) -> None:
    lab = Lab("manager")
    line = lab.broker.session("p", "v2.driver")
    try:
        with lend(line):
            resource = lab.open()
        resource.lock_excl()
        line.close() if end == "closed" else line.revoke("it hangs")
        resource.close()
        assert lab.exchange(b"A?\n") == b"A=ok\n"
    finally:
        lab.close()
