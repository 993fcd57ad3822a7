"""Home-made classes: found by name or file, given a pyserial-compatible port or left to open their own."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duodaq import clock
from duodaq.dataplane import Policy
from duodaq.errors import ConfigError, RefusedError, StoppedError
from duodaq.model import (
    Execute,
    GetParameter,
    Image,
    InstrumentDefinition,
    InstrumentState,
    ParameterEntry,
    PollDefinition,
    PortDefinition,
    Scalar,
    SetParameter,
    SnapFrame,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport
from duodaq.v2 import DataDistributor, StartRecording, StopRecording, V2Runtime
from duodaq.v2.families import PlainFamily, PyMeasureFamily, SharedSerial, family_of, load_driver

EXAMPLES = Path(__file__).parents[2] / "examples"


class NoParameters:
    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        return ParameterEntry(instrument, name, value, unit, 0, 0, owner)

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return None

    def mark_stale(self, owner: Any, instrument: str) -> None: ...


def chopper_script(line: bytes) -> bytes | Answer | None:
    if line == b"RATE?":
        return b"12.5\n"
    if line == b"SLOW?":
        return Answer(b"1\n", 0.1)
    return b"0\n1\n2\n" if line == b"A?;B?;C?" else None


class Chopper:
    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def ask(self, text: str) -> bytes:
        self.serial.write(text.encode() + b"\n")
        return self.serial.readline()

    def get_rate(self) -> float:
        return float(self.ask("RATE?"))

    def creep(self) -> str:
        for _ in range(40):
            with contextlib.suppress(Exception):  # as careless as drivers are
                self.ask("SLOW?")
            self.serial.write(b"MV1\n")
        return "arrived"


@asynccontextmanager
async def hosted(
    *definitions: InstrumentDefinition, start: bool = True, recorder: Any = None
) -> AsyncIterator[tuple[V2Runtime, ScriptedTransport, DataDistributor, Broker]]:
    broker, line, hub = Broker(), ScriptedTransport(chopper_script), DataDistributor()
    port = PortDefinition("line", serial={"path": "scripted", "baud": 9600}, timeout_s=0.3)
    await broker.add(port, ScriptedCodec(), line)
    await broker.open("line")
    runtime = V2Runtime(broker, NoParameters(), hub, recorder=recorder)
    for definition in definitions:
        await runtime.add(definition)
    if start:
        await runtime.start(5.0)
    try:
        yield runtime, line, hub, broker
    finally:
        await runtime.stop(2.0)
        await broker.aclose()


def chopper(driver: Any = Chopper, **facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("chopper", "v2", driver, port=facts.pop("port", "line"), **facts)


async def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = clock.Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await clock.pause(0.005)


async def with_port(use: Any) -> Any:
    """What `use(serial)` returns, called in a driver's thread on a scripted line."""

    class Probe:
        def __init__(self, port: Any) -> None:
            self.port = port

        def run(self) -> Any:
            return use(self.port)

    async with hosted(chopper(Probe)) as (runtime, *_):
        return await runtime.command("chopper", Execute("run"))


async def test_a_class_gets_the_shared_port_by_the_name_of_its_argument() -> None:
    async with hosted(chopper()) as (runtime, *_):
        assert await runtime.command("chopper", Execute("get_rate")) == 12.5


async def test_the_example_of_a_home_made_class_is_hosted_from_its_file_by_one_stanza() -> None:
    assert len((EXAMPLES / "own_chopper.py").read_text().split('"""')[2].strip().splitlines()) <= 20
    definition = chopper(
        "./own_chopper.py:Chopper",
        base_dir=EXAMPLES,
        polls=(PollDefinition("rate", 0.05, "Hz", call="get_rate"),),
    )
    async with hosted(definition) as (runtime, line, hub, _):
        readings = hub.subscribe("test")
        reading = await readings.get(5.0)
        assert isinstance(reading, Scalar)
        assert (reading.instrument, reading.channel, reading.unit, reading.value) == ("chopper", "rate", "Hz", 12.5)
        await runtime.command("chopper", Execute("set_rate", (80,)))
        await until(lambda: b"RATE 80" in line.lines)


async def test_the_argument_marked_with_the_port_gets_it() -> None:
    class Named:
        def __init__(self, name: str, wire: Any) -> None:
            self.name, self.wire = name, wire

        def kind_of_wire(self) -> str:
            return type(self.wire).__name__

    async with hosted(chopper(Named, args={"name": "c", "wire": "{port}"})) as (runtime, *_):
        assert await runtime.command("chopper", Execute("kind_of_wire")) == SharedSerial.__name__


async def test_a_class_that_takes_no_port_is_refused_with_the_remedy() -> None:
    class Alone:
        def __init__(self, device: str = "x") -> None: ...

    async with hosted(chopper(Alone)) as (runtime, *_):
        status = runtime.instruments()[0]
        assert status.state is InstrumentState.ERROR
        assert 'args = { name = "{port}" }' in status.message


async def test_wrong_arguments_name_the_key_and_the_signature() -> None:
    async with hosted(chopper(args={"speed": 3})) as (runtime, *_):
        assert "instruments.chopper.args" in runtime.instruments()[0].message
        assert "'speed'" in runtime.instruments()[0].message


async def test_a_read_that_times_out_returns_what_there_is_as_pyserial_does() -> None:
    def use(serial: Any) -> Any:
        serial.timeout = 0.05
        serial.write(b"RATE?\n")
        return serial.read(100), serial.read(1), serial.readline()

    assert await with_port(use) == (b"12.5\n", b"", b"")


async def test_lines_are_read_one_by_one() -> None:
    def use(serial: Any) -> Any:
        serial.timeout = 0.05
        serial.write(b"A?;B?;C?\n")
        return serial.readline(), serial.read_until(b"1"), serial.readlines()

    assert await with_port(use) == (b"0\n", b"1", [b"\n", b"2\n"])


async def test_what_has_come_can_be_counted_and_thrown_away() -> None:
    def use(serial: Any) -> Any:
        serial.write(b"RATE?\n")
        first = serial.read(1)
        waiting = serial.in_waiting
        serial.reset_input_buffer()
        return first, waiting, serial.in_waiting, serial.inWaiting()

    assert await with_port(use) == (b"1", 4, 0, 0)


async def test_closing_and_opening_touches_nobody_elses_line() -> None:
    def use(serial: Any) -> Any:
        with serial as same:
            assert same is serial
            same.write(b"RATE?\n")
            reply = same.readline()
        closed = serial.is_open
        serial.open()
        serial.write(b"RATE?\n")
        return reply, closed, serial.isOpen(), serial.readline()

    assert await with_port(use) == (b"12.5\n", False, True, b"12.5\n")


async def test_the_line_keeps_its_settings_and_a_driver_that_wants_others_is_told_so() -> None:
    def use(serial: Any) -> Any:
        serial.baudrate = 9600
        serial.rtscts = True
        with pytest.raises(ConfigError, match="9600"):
            serial.baudrate = 115200
        with pytest.raises(ConfigError):
            serial.send_break()
        return serial.baudrate, serial.port, serial.get_settings()["baudrate"]

    assert await with_port(use) == (9600, "line", 9600)


async def test_readinto_and_iteration_work_as_on_any_raw_stream() -> None:
    def use(serial: Any) -> Any:
        serial.timeout = 0.05
        buffer = bytearray(5)
        serial.write(b"RATE?\n")
        count = serial.readinto(buffer)
        serial.writelines([b"RA", b"TE?\n"])
        return count, bytes(buffer), list(serial), serial.readable(), serial.seekable()

    assert await with_port(use) == (5, b"12.5\n", [b"12.5\n"], True, False)


async def test_a_stop_goes_out_beside_a_driver_that_creeps_which_then_writes_nothing_that_moves() -> None:
    async with hosted(chopper()) as (runtime, line, *_):
        creeping = asyncio.create_task(runtime.command("chopper", Execute("creep"), 20.0))
        await until(lambda: line.lines.count(b"MV1") == 2)
        await runtime.command("chopper", Stop())
        with pytest.raises(StoppedError):
            await creeping
        assert line.lines.count(b"ST") == 1
        assert b"MV1" not in line.lines[line.lines.index(b"ST") :]


async def test_the_stop_bytes_of_the_stanza_come_before_the_codecs() -> None:
    async with hosted(chopper(stop=b"STX\n")) as (runtime, line, *_):
        await runtime.command("chopper", Stop())
        assert line.lines == [b"STX"]
        await runtime.command("chopper", Stop(axis="2"))
        assert line.lines == [b"STX", b"ST2"]


async def test_stop_of_a_port_without_known_stop_bytes_is_refused() -> None:
    class Mute(ScriptedCodec):
        def stop_bytes(self, axis: str | None, /) -> bytes | None:
            return None

    broker, line = Broker(), ScriptedTransport(chopper_script)
    await broker.add(PortDefinition("line", serial={"path": "x"}), Mute(), line)
    await broker.open("line")
    runtime = V2Runtime(broker, NoParameters(), DataDistributor())
    await runtime.add(chopper())
    await runtime.start(5.0)
    try:
        with pytest.raises(RefusedError, match="neither its stanza nor its port's codec"):
            await runtime.command("chopper", Stop())
    finally:
        await runtime.stop(1.0)
        await broker.aclose()


class Meter:
    """Polled values of every kind; some fail when told to."""

    fail = False
    readings = 0

    def __init__(self) -> None:
        self.power = 1.5

    def read(self) -> float:
        type(self).readings += 1
        if type(self).fail:
            raise RuntimeError("no light")
        return 2.0

    def snap(self, gain: int = 1) -> np.ndarray:
        return np.full((2, 3), gain, dtype=np.uint16)


def meter(**facts: Any) -> InstrumentDefinition:
    polls = facts.pop("polls", (PollDefinition("light", 0.02, "W", call="read"),))
    return InstrumentDefinition("meter", "v2", Meter, polls=polls, **facts)


async def test_a_failed_reading_is_an_error_and_polling_goes_on_until_it_is_well_again() -> None:
    Meter.fail = False
    async with hosted(meter()) as (runtime, _, hub, _b):
        readings = hub.subscribe("test")
        await readings.get(5.0)
        Meter.fail = True
        await until(lambda: runtime.instruments()[0].state is InstrumentState.ERROR)
        assert "no light" in runtime.instruments()[0].message
        Meter.fail = False
        await until(lambda: runtime.instruments()[0].state is InstrumentState.ACQUIRING)
        numbers = [(await readings.get(5.0)).sequence for _ in range(3)]
        assert numbers == list(range(numbers[0], numbers[0] + 3))


async def test_numbers_go_on_without_a_gap_across_a_restart() -> None:
    Meter.fail = False
    async with hosted(meter()) as (runtime, _, hub, _b):
        readings = hub.subscribe("test", capacity=100000)
        first = (await readings.get(5.0)).sequence
        await runtime.restart("meter")
        await clock.pause(0.1)
        await runtime.stop(2.0)
        numbers = [item.sequence for item in await readings.get_many(100000, 0.1)]
        assert len(numbers) > 1
        assert numbers == list(range(first + 1, first + 1 + len(numbers)))


async def test_acquisition_stops_and_starts_on_command() -> None:
    async with hosted(meter(options={"acquire": False})) as (runtime, _, hub, _b):
        readings = hub.subscribe("test")
        assert runtime.instruments()[0].state is InstrumentState.READY
        assert await runtime.command("meter", StartAcquisition()) == ("light",)
        await readings.get(5.0)
        assert runtime.instruments()[0].state is InstrumentState.ACQUIRING
        await runtime.command("meter", StopAcquisition())
        assert runtime.instruments()[0].state is InstrumentState.READY
        before = readings.offered
        await clock.pause(0.1)
        assert readings.offered == before


async def test_an_instrument_without_channels_has_nothing_to_acquire() -> None:
    async with hosted(meter(polls=())) as (runtime, *_):
        with pytest.raises(RefusedError, match="no channel"):
            await runtime.command("meter", StartAcquisition())


async def test_a_frame_is_taken_published_and_returned() -> None:
    async with hosted(meter(polls=())) as (runtime, _, hub, _b):
        frames = hub.subscribe("test")
        frame = await runtime.command("meter", SnapFrame({"gain": 4}))
        assert isinstance(frame, Image)
        assert frame.pixels.tolist() == [[4, 4, 4], [4, 4, 4]]
        assert await frames.get(1.0) is frame


async def test_a_channel_is_read_now_by_its_name_where_the_driver_has_no_such_attribute() -> None:
    async with hosted(meter(options={"acquire": False})) as (runtime, *_):
        reading = await runtime.command("meter", GetParameter("light"))
        assert (reading.value, reading.unit, reading.channel) == (2.0, "W", "light")


async def test_a_slow_subscriber_loses_values_alone_and_is_told_how_many() -> None:
    async with hosted(meter(polls=(PollDefinition("light", 0.005, "W", call="read"),))) as (_runtime, _, hub, _b):
        fast, slow = hub.subscribe("fast"), hub.subscribe("slow", capacity=2)
        numbers = [(await fast.get(5.0)).sequence for _ in range(20)]
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        first = await slow.get(1.0)
        assert slow.take_missed() == slow.dropped > 0
        assert first.sequence >= numbers[0] + slow.dropped - 3
        assert hub.ledger().balanced


class FakeRecorder:
    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    async def start(self, **options: Any) -> str:
        self.options = options
        return "recording"

    async def stop(self) -> str:
        return "complete"


async def test_recording_is_started_and_stopped_by_command() -> None:
    recorder = FakeRecorder()
    async with hosted(meter(), recorder=recorder) as (runtime, *_):
        assert await runtime.submit(StartRecording({"name": "knife"})) == "recording"
        assert recorder.options == {"name": "knife"}
        assert await runtime.submit(StopRecording()) == "complete"


def write(path: Path, code: str) -> None:
    path.write_text(textwrap.dedent(code))


def from_file(tmp_path: Path, driver: str) -> InstrumentDefinition:
    return InstrumentDefinition("own", "v2", driver, base_dir=tmp_path)


def test_a_class_is_loaded_from_a_file_beside_the_lab_file_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "v2_neighbour.py", "SCALE = 3")
    write(tmp_path / "own.py", "from v2_neighbour import SCALE\nclass Own:\n    scale = SCALE\n")
    driver: Any = load_driver(from_file(tmp_path, "./own.py:Own"))
    assert driver.scale == 3


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    write(tmp_path / "own.py", "class Own:\n    version = 1\n")
    first: Any = load_driver(from_file(tmp_path, "./own.py:Own"))
    assert load_driver(from_file(tmp_path, "./own.py:Own")) is first
    write(tmp_path / "own.py", "class Own:\n    version = 22\n")
    second: Any = load_driver(from_file(tmp_path, "./own.py:Own"))
    assert (first.version, second.version) == (1, 22)


@pytest.mark.parametrize(
    ("driver", "what"),
    [
        ("./missing.py:Own", "cannot read"),
        ("./own.py:Owl", "It has Own"),
        ("./broken.py:Own", "ZeroDivisionError"),
        ("./needy.py:Own", "pip install no_such_package"),
        ("no_such_package.sub:Own", "pip install no_such_package"),
        ("duodaq.nothing_here:Own", "is installed, but has no"),
        ("justaname", "names no class"),
        ("json:nothing", "json has no class 'nothing'"),
    ],
)
def test_a_driver_that_cannot_be_loaded_says_what_would_be_right(tmp_path: Path, driver: str, what: str) -> None:
    write(tmp_path / "own.py", "class Own: ...")
    write(tmp_path / "broken.py", "1 / 0")
    write(tmp_path / "needy.py", "import no_such_package")
    with pytest.raises(ConfigError, match=what) as caught:
        load_driver(from_file(tmp_path, driver))
    assert caught.value.key == "instruments.own.driver"
    assert caught.value.remedy


def test_families_are_told_apart_by_the_bases_of_the_class() -> None:
    assert isinstance(family_of(Meter), PlainFamily)
    pymeasure_hp = pytest.importorskip("pymeasure.instruments.hp")
    assert isinstance(family_of(pymeasure_hp.HP34401A), PyMeasureFamily)


async def test_a_stop_that_comes_while_the_call_is_being_prepared_refuses_it() -> None:
    preparing, gate, fired = threading.Event(), threading.Event(), threading.Event()

    class Gun:
        @property
        def fire(self) -> Any:
            preparing.set()
            gate.wait(5.0)
            return fired.set

    async with hosted(InstrumentDefinition("gun", "v2", Gun)) as (runtime, *_):
        firing = asyncio.create_task(runtime.command("gun", Execute("fire")))
        await until(preparing.is_set)
        runtime.end_moving("stop")
        gate.set()
        with pytest.raises(StoppedError):
            await firing
        assert not fired.is_set()


async def test_a_setting_that_changes_another_watched_one_shows_in_the_table() -> None:
    class Coupled:
        mode = "volt"

        @property
        def range(self) -> float:
            return {"volt": 10.0, "ohm": 1e6}[self.mode]

    values: dict[str, Any] = {}

    class Table(NoParameters):
        def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
            values[name] = value
            return super().put(owner, instrument, name, value, unit)

    runtime = V2Runtime(Broker(), Table(), DataDistributor())
    await runtime.add(InstrumentDefinition("dmm", "v2", Coupled, watched=("mode", "range")))
    await runtime.start(5.0)
    try:
        assert values == {"mode": "volt", "range": 10.0}
        await runtime.command("dmm", SetParameter("mode", "ohm"))
        await until(lambda: values == {"mode": "ohm", "range": 1e6})
    finally:
        await runtime.stop(2.0)


@pytest.mark.filterwarnings("ignore:It is not known whether this device support SCPI:FutureWarning")
async def test_the_terminators_that_a_pymeasure_class_would_have_given_to_visa_are_used() -> None:
    instruments = pytest.importorskip("pymeasure.instruments")

    class Odd(instruments.SCPIUnknownMixin, instruments.Instrument):
        rate = instruments.Instrument.measurement("RATE", """The rate in Hz.""", cast=str)

        def __init__(self, adapter: Any, name: str = "odd", **kwargs: Any) -> None:
            super().__init__(
                adapter, name, write_termination="?\n", asrl={"read_termination": ".5\n"}, timeout=700, **kwargs
            )

    async with hosted(chopper(Odd)) as (runtime, line, *_):
        assert await runtime.command("chopper", GetParameter("rate")) == "12"
        assert line.lines == [b"RATE?"]
        assert await runtime.command("chopper", GetParameter("adapter.connection.timeout")) == 700


async def test_polls_that_are_always_due_leave_room_for_commands_and_commands_for_polls() -> None:
    class Busy:
        def read(self) -> float:
            clock.block(0.01)
            return 1.0

    polls = tuple(PollDefinition(name, 0.002, call="read") for name in "xyz")
    busy = InstrumentDefinition("busy", "v2", Busy, polls=polls)
    async with hosted(busy) as (runtime, _, hub, _b):
        readings = hub.subscribe("test")
        before = readings.offered
        for _ in range(20):
            await runtime.command("busy", Execute("read"), 2.0)
        assert readings.offered - before >= 10
        assert runtime.metrics()["instruments"]["busy"]["polls"]["x"]["skipped"] > 0


async def test_a_device_that_is_gone_is_connected_anew_after_its_first_failure() -> None:
    class Loose:
        failures = 0
        made = 0

        def __init__(self) -> None:
            type(self).made += 1

        def read(self) -> float:
            if type(self).made == 1:
                type(self).failures += 1
                raise ConnectionResetError("gone")
            return 1.0

    loose = InstrumentDefinition("loose", "v2", Loose, polls=(PollDefinition("x", 0.01, call="read"),))
    async with hosted(loose) as (_runtime, _, hub, _b):
        reading = await hub.subscribe("test").get(5.0)
        assert (reading.sequence, Loose.failures, Loose.made) == (0, 1, 2)


async def test_a_lossless_subscriber_slows_its_producer_and_loses_nothing() -> None:
    Meter.fail = False
    async with hosted(meter(polls=(PollDefinition("light", 0.002, "W", call="read"),), options={"acquire": False})) as (
        runtime,
        _,
        hub,
        _b,
    ):
        recorder = hub.subscribe("recorder", capacity=1, policy=Policy.BLOCK)
        await runtime.command("meter", StartAcquisition())
        numbers: list[int] = []
        for _ in range(20):
            numbers.append((await recorder.get(5.0)).sequence)
            await clock.pause(0.01)
        assert numbers == list(range(20))
        assert runtime.metrics()["instruments"]["meter"]["unpublished"] == 0
