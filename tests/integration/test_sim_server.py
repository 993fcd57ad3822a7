"""Simulators on real ptys and sockets: pace, order, faults, plugs, and interleaving as the device sees it."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duodaq.clock import Deadline, block
from duodaq.sim import Faults, SimProcess, launch, launch_table

IDENTITY = b"ESP300 Version 3.04 07/27/01\r\n"


class Wire:
    """A client with nothing but a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def write(self, data: bytes) -> None:
        os.write(self.descriptor, data)

    def read_line(self, timeout_s: float = 10.0) -> bytes:
        line, until_s = b"", time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            if not select.select([self.descriptor], [], [], max(0.0, until_s - time.monotonic()))[0]:
                return line
            data = os.read(self.descriptor, 1)
            if not data:
                raise ConnectionError("the line is dead")
            line += data
        return line

    def ask(self, text: str, timeout_s: float = 10.0) -> bytes:
        self.write(text.encode() + b"\r\n")
        return self.read_line(timeout_s)


@contextmanager
def opened(address: str) -> Iterator[Wire]:
    descriptor = os.open(address, os.O_RDWR | os.O_NOCTTY)
    try:
        yield Wire(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def connected(address: str) -> Iterator[Wire]:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        yield Wire(client.fileno())


def answered(wire: Wire, questions: int) -> int:
    """How many of so many questions are answered before the line dies; it has to die."""
    for count in range(questions):
        try:
            wire.ask("VE?")
        except OSError:
            return count
    raise AssertionError("the line is still alive")


@pytest.fixture(scope="module")
def stage() -> Iterator[SimProcess]:
    with launch("esp300") as process:
        yield process


@pytest.fixture
def wire(stage: SimProcess) -> Iterator[Wire]:
    stage.fault()
    with opened(stage.address) as wire:
        while wire.read_line(0.1):
            pass  # what an earlier test has left on the line
        yield wire
        stage.fault()


def test_a_pty_answers_and_counts(stage: SimProcess, wire: Wire):
    before = stage.report()
    assert wire.ask("VE?") == IDENTITY
    for _ in range(50):
        assert wire.ask("1TP") == b"0\r\n"
    after = stage.report()
    assert after["produced"]["1TP"] - before["produced"].get("1TP", 0) == 50
    assert after["interleavings"] == before["interleavings"]


def test_a_socket_answers_and_a_second_client_is_hung_up_on():
    with launch("esp300", tcp=True) as process:
        with connected(process.address) as first:
            assert first.ask("VE?") == IDENTITY
            with connected(process.address) as second, pytest.raises(ConnectionError):
                second.ask("VE?")
            assert first.ask("1TP") == b"0\r\n"
        with connected(process.address) as third:
            assert third.ask("1TP") == b"0\r\n"


def test_two_unsynchronised_clients_on_one_line_are_noticed(stage: SimProcess):
    before, enough, limit = stage.report()["interleavings"], threading.Event(), Deadline(20)

    def client() -> None:
        with opened(stage.address) as wire:
            while not enough.is_set():
                wire.write(b"1TP\r\n")
                wire.read_line(0.005)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    while (noticed := stage.report()["interleavings"] - before) == 0 and not limit.passed:
        block(0.02)
    enough.set()
    for thread in threads:
        thread.join()
    assert noticed > 0


def test_two_synchronised_clients_on_one_line_are_not_accused(stage: SimProcess, wire: Wire):
    before, lock = stage.report(), threading.Lock()
    replies: list[bytes] = []

    def client(query: str, expected: bytes) -> None:
        with opened(stage.address) as own:
            for _ in range(200):
                with lock:
                    replies.append(own.ask(query).replace(expected, b"right"))

    threads = [threading.Thread(target=client, args=pair) for pair in (("VE?", IDENTITY), ("1SN?", b"2\r\n"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = stage.report()
    assert set(replies) == {b"right"}
    assert after["interleavings"] == before["interleavings"]
    assert after["exchanges"] - before["exchanges"] == 400


def test_a_query_before_the_last_reply_was_read_is_interleaved_but_a_stop_is_not(stage: SimProcess, wire: Wire):
    before = stage.report()["interleavings"]
    wire.write(b"VE?\r\n")
    block(0.05)
    wire.write(b"ST\r\n")
    block(0.05)
    assert stage.report()["interleavings"] == before
    wire.write(b"1TP\r\n")
    block(0.05)
    assert stage.report()["interleavings"] == before + 1
    assert (wire.read_line(), wire.read_line()) == (IDENTITY, b"0\r\n")


def test_a_paced_line_takes_the_time_of_its_bytes():
    with launch("esp300", paced=True) as process, opened(process.address) as wire:
        wire.ask("VE?")
        began_s = time.monotonic()
        for _ in range(10):
            wire.ask("VE?")
        elapsed_s = time.monotonic() - began_s
        bytes_s = (len(b"VE?\r\n") + len(IDENTITY)) * 10 / 19200
        assert elapsed_s > 10 * (bytes_s + 0.003)
        assert process.report()["interleavings"] == 0


def test_on_a_paced_line_a_query_into_a_reply_is_interleaved():
    with launch("esp300", paced=True) as process, opened(process.address) as wire:
        wire.write(b"VE?\r\n")
        block(0.005)
        wire.write(b"1TP\r\n")
        assert (wire.read_line(), wire.read_line()) == (IDENTITY, b"0\r\n")
        assert process.report()["interleavings"] == 1


def test_a_stalled_instrument_answers_late_once_it_wakes(stage: SimProcess, wire: Wire):
    stage.fault("stall")
    assert wire.ask("VE?", 0.2) == b""
    stage.fault()
    assert wire.read_line() == IDENTITY


def test_a_delayed_reply_comes_late_and_whole(stage: SimProcess, wire: Wire):
    stage.fault(delay_s=0.3)
    began_s = time.monotonic()
    assert wire.ask("VE?") == IDENTITY
    assert time.monotonic() - began_s >= 0.3


def test_jitter_loses_and_mixes_nothing(stage: SimProcess, wire: Wire):
    stage.fault("jitter")
    for _ in range(20):
        assert wire.ask("VE?") == IDENTITY
        assert wire.ask("1SN?") == b"2\r\n"


def test_a_dropped_reply_was_produced_all_the_same(stage: SimProcess, wire: Wire):
    before = stage.report()
    stage.fault(drop_next=1)
    assert wire.ask("2TP", 0.2) == b""
    assert wire.ask("2TP") == b"0\r\n"
    after = stage.report()
    assert after["produced"]["2TP"] - before["produced"].get("2TP", 0) == 2
    assert after["faults_done"]["drop"] - before["faults_done"].get("drop", 0) == 1


def test_a_garbled_reply_keeps_its_terminator(stage: SimProcess, wire: Wire):
    stage.fault(Faults(garble_next=1))
    reply = wire.ask("VE?")
    assert reply != IDENTITY
    assert reply.endswith(b"\r\n")


def test_unplugging_a_pty_kills_the_line_and_replugging_revives_the_link(stage: SimProcess):
    link = Path(stage.address)
    device = link.resolve()
    with opened(stage.address) as wire:
        assert wire.ask("VE?") == IDENTITY
        stage.unplug()
        assert not link.is_symlink()
        with pytest.raises(OSError):  # noqa: PT011  EIO or end of file, as the kernel likes
            wire.ask("VE?")
    stage.replug()
    assert link.resolve().exists()
    with opened(stage.address) as wire:
        assert wire.ask("VE?") == IDENTITY
    assert device != link.resolve() or device.exists()


def test_unplugging_a_socket_hangs_up_and_replugging_listens_on_the_same_port():
    with launch("esp300", tcp=True) as process:
        with connected(process.address) as wire:
            assert wire.ask("VE?") == IDENTITY
            process.unplug()
            assert answered(wire, 2) == 0
        with pytest.raises(ConnectionRefusedError), connected(process.address):
            pass
        process.replug()
        with connected(process.address) as wire:
            assert wire.ask("VE?") == IDENTITY


def test_the_plug_can_be_pulled_by_a_fault_in_mid_session(stage: SimProcess):
    stage.fault(disconnect_after=3)
    with opened(stage.address) as wire:
        assert answered(wire, 10) in (2, 3)  # the kernel may throw the last one away with the line
    stage.fault()
    stage.replug()


def test_a_power_cycle_forgets_settings_but_not_where_the_stage_stands():
    with launch_table(1) as table, launch("esp300", table=table) as process, opened(process.address) as wire:
        wire.write(b"1MO;1PA2;1WS\r\n")
        assert wire.ask("1TP") == b"2\r\n"
        process.power_cycle()
        assert wire.ask("1TP;1MO?") == b"0\r\n"
        assert wire.read_line() == b"0\r\n"
        assert table.state().positions[1] == 2.0


def test_every_simulator_sees_the_same_table():
    with (
        launch_table(6, shutter_open=False) as table,
        launch("esp300", table=table) as stage,
        launch("newport1830c", table=table) as meter,
        launch("shutter", table=table) as shutter,
        opened(stage.address) as stage_wire,
        opened(meter.address) as meter_wire,
        opened(shutter.address) as shutter_wire,
    ):
        stage_wire.write(b"1VA40;1AC160;1AG160;1MO;1PA20;1WS\r\n")
        assert stage_wire.ask("1TP") == b"20\r\n"
        assert abs(float(meter_wire.ask("D?"))) < 1e-5
        shutter_wire.write(b"SHUT 1\n")
        assert shutter_wire.ask("SHUT?") == b"1\n"
        truth = table.truth()
        assert float(meter_wire.ask("D?")) == pytest.approx(truth.power_w, rel=0.02)
        stage_wire.write(b"1PA-20;1WS\r\n")
        assert stage_wire.ask("1TP") == b"-20\r\n"
        assert abs(float(meter_wire.ask("D?"))) < 1e-5
        reports = {process.instrument: process.report() for process in (stage, meter, shutter)}
        counts = table.counts()
        assert {name: counts[name]["produced"] for name in counts} == {
            name: report["produced"] for name, report in reports.items()
        }
        assert counts["newport1830c"]["produced"] == {"D": 3}


def test_an_unplugged_shutter_controller_keeps_its_shutter_and_one_without_power_closes_it():
    with launch_table(6) as table, launch("shutter", table=table) as shutter, opened(shutter.address) as wire:
        wire.write(b"SHUT 1\n")
        assert wire.ask("SHUT?") == b"1\n"
        shutter.unplug()
        assert table.state().shutter_open
        shutter.power_cycle()
        assert not table.state().shutter_open
