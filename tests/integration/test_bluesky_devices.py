"""Instruments of both runtimes and of three driver families as devices of a RunEngine that is the user's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import bluesky.protocols
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.simulators import check_limits
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators

import duodaq
from duodaq.app import LabClient
from duodaq.bluesky import Devices, devices
from duodaq.clock import Deadline, block
from duodaq.errors import OutOfRangeError
from duodaq.storage.journal import JournalReader

pytest.importorskip("serial")
pytestmark = [pytest.mark.serial, pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")]

CAMERA = """
[instruments.camera]
runtime = "v4"
driver = "duodaq:PvcamActor"
args = { simulated = true, table = "TABLE", seed = 3 }

[instruments.meter]
runtime = "v2"
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
poll.power = { call = "read_power", unit = "W", every = "50 ms" }

[ports.meter]
serial = { path = "METER", baud = 9600 }
codec = "newport1830c"
"""

Document = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def power_meter(simulated_table: Any) -> Iterator[Any]:
    with duodaq.sim.launch("newport1830c", table=simulated_table[0]) as meter:
        yield meter


@pytest.fixture
def lab(simulated_lab: Any, power_meter: Any) -> Iterator[LabClient]:
    text = CAMERA.replace("TABLE", simulated_lab.table.address).replace("METER", power_meter.address)
    simulated_lab.file.write_text(simulated_lab.file.read_text() + text)
    with duodaq.open(simulated_lab.file) as lab:
        lab.camera.set("roi", (768, 768, 512, 512))
        yield lab


@pytest.fixture
def d(lab: LabClient) -> Devices:
    return devices(lab)


@pytest.fixture
def engine(lab: LabClient) -> Iterator[RunEngine]:
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    yield engine
    if engine.state != "idle":
        engine.abort()
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join(5.0)
    loop.close()


@pytest.fixture
def heard(engine: RunEngine) -> list[Document]:
    """What the engine emits; each document is valid."""
    documents: list[Document] = []

    def hear(name: str, document: dict[str, Any]) -> None:
        schema_validators[DocumentNames[name]].validate(document)
        documents.append((name, document))

    engine.subscribe(hear)
    return documents


def values(heard: list[Document], field: str) -> list[Any]:
    found: list[Any] = []
    for name, doc in heard:
        if name == "event" and field in doc["data"]:
            found.append(doc["data"][field])
        elif name == "event_page":
            found += doc["data"].get(field, [])
    return found


def stopped_as(heard: list[Document]) -> str:
    return next(doc["exit_status"] for name, doc in heard if name == "stop")


def test_they_satisfy_the_protocols_of_bluesky(d: Devices) -> None:
    p = bluesky.protocols
    for device in (d.stage.x, d.dmm, d.camera, d.shutter):
        assert isinstance(device, p.Readable)
        assert isinstance(device, p.Configurable)
        assert isinstance(device, p.Stageable)
        assert isinstance(device, p.HasHints)
    assert isinstance(d.dmm, p.Triggerable)
    for movable in (d.stage.x, d.dmm.settable("nplc")):
        assert isinstance(movable, p.Movable)
        assert isinstance(movable, p.Stoppable)
        assert isinstance(movable, p.NamedMovable)
    assert isinstance(d.stage.x, p.Locatable)
    assert isinstance(d.stage.x, p.Checkable)
    assert isinstance(d.camera.flyer(), p.Flyable)
    assert isinstance(d.camera.flyer(), p.EventCollectable)


def test_plans_over_both_runtimes_and_three_families(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    lab.stage.x.home()
    read = [d.dmm, d.meter, d.camera]
    engine(bp.count(read, 2))
    assert np.shape(values(heard, "camera_frames")) == (2, 512, 512)
    heard.clear()

    engine(bp.scan(read, d.stage.x, 1.0, 2.0, 3))
    assert values(heard, "stage_x_setpoint") == [1.0, 1.5, 2.0]
    assert values(heard, "stage_x") == pytest.approx([1.0, 1.5, 2.0], abs=0.01)
    assert len(values(heard, "meter_power")) == len(values(heard, "dmm_voltage")) == 3
    units = next(doc["data_keys"] for name, doc in heard if name == "descriptor")
    assert [units[f]["units"] for f in ("stage_x", "meter_power", "dmm_voltage")] == ["mm", "W", "V"]
    heard.clear()

    engine(bp.grid_scan([d.meter], d.dmm.settable("nplc"), 1, 10, 2, d.stage.x, 1.0, 2.0, 2, snake_axes=True))
    assert values(heard, "dmm_nplc") == [1, 1, 10, 10]
    assert values(heard, "stage_x_setpoint") == [1.0, 2.0, 2.0, 1.0]
    heard.clear()

    engine(bp.rel_scan([d.meter], d.stage.x, -0.5, 0.5, 2))
    assert values(heard, "stage_x_setpoint") == pytest.approx([0.5, 1.5], abs=0.01)
    assert lab.stage.x.read_position().value == pytest.approx(1.0, abs=0.01), "a relative scan goes back"
    assert stopped_as(heard) == "success"


def test_a_relative_plan_begins_where_the_axis_is_whoever_moved_it(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    engine(bps.mv(d.stage.x, 4.0))
    lab.stage.x.move(1.0)  # by the page, a notebook, a stop: not by this device
    engine(bp.rel_scan([d.meter], d.stage.x, -0.5, 0.5, 2))
    assert values(heard, "stage_x_setpoint") == pytest.approx([0.5, 1.5], abs=0.01)
    assert lab.stage.x.read_position().value == pytest.approx(1.0, abs=0.01)


def test_a_position_beyond_the_limits_is_refused_by_the_check_and_by_the_plan(
    lab: LabClient, d: Devices, engine: RunEngine
) -> None:
    before = lab.stage.x.read_position().value
    with pytest.raises(OutOfRangeError, match="26 mm is outside the limits 0 … 25 mm"):
        check_limits(bp.scan([d.meter], d.stage.x, 1.0, 26.0, 3))
    with pytest.raises(OutOfRangeError, match="26 mm is outside the limits"):
        engine(bps.mv(d.stage.x, 26.0))
    assert lab.stage.x.read_position().value == pytest.approx(before, abs=0.01)


def test_the_lab_records_the_documents_of_a_foreign_engine(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    journal = lab.journal()
    engine.subscribe(journal)
    engine(bp.scan([d.meter, d.camera], d.stage.x, 1.0, 2.0, 3), sample="knife 7", power_mW=2.5)

    (directory,) = journal.directories.values()
    assert lab.status()["recording"] is None, "the recording ends with the run"
    kept = recorded(directory)
    assert [name for name, _ in kept] == [name for name, _ in heard]
    for name, document in kept:
        schema_validators[DocumentNames[name]].validate(document)
    assert values(kept, "meter_power") == values(heard, "meter_power")
    assert kept[0][1]["power_mW"] == 2.5
    run = duodaq.open_run(directory)
    assert run.labels.sample == "knife 7"
    pictures, times = run["camera.frames"].frames, run["camera.frames"].to_arrow(["timestamp"])["timestamp"]
    for reference, frame in zip(values(kept, "camera_frames"), values(heard, "camera_frames"), strict=True):
        stream, _, t_ns = reference.partition("@")
        assert stream == "duodaq:camera.frames"
        near = np.argmin(abs(times.cast("int64").to_numpy() - int(t_ns)))
        assert np.array_equal(pictures[near], frame), "what is referred to is in the recording"


def recorded(directory: Path) -> list[Document]:
    events = JournalReader(directory).events
    return [(e.doc["kind"], e.doc["doc"]) for e in events if e.name == "document"]


def test_a_fly_scan_collects_every_frame_while_the_stage_moves(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    flyer = d.camera.flyer(count=5, exposure_s=0.002)

    @bpp.fly_during_decorator([flyer])
    @bpp.run_decorator()
    def along() -> Any:
        yield from bps.mv(d.stage.x, 2.0)

    engine(along())
    numbers = values(heard, "camera_frames_sequence")
    assert len(numbers) >= 5
    assert np.all(np.diff(numbers) == 1), "none is missing"
    assert lab.camera.status()["state"] == "ready"


def test_a_stream_of_v2_flies_as_well_and_runs_on_for_others(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    engine(bp.fly([d.meter.flyer(count=4)]))
    assert len(values(heard, "meter_power")) >= 4
    assert np.all(np.diff(values(heard, "meter_power_sequence")) == 1)
    assert lab.meter.status()["state"] == "acquiring"


def test_what_two_flights_need_ends_with_the_last_of_them_unless_it_ran_before(
    lab: LabClient, d: Devices, engine: RunEngine
) -> None:
    def plan() -> Any:
        one, two = d.camera.flyer(), d.camera.flyer()
        two.name = "second"
        yield from bps.open_run()
        for flyer in (one, two):
            yield from bps.kickoff(flyer, wait=True)
        yield from bps.complete(one, wait=True)
        states.append(lab.camera.status()["state"])
        yield from bps.complete(two, wait=True)
        states.append(lab.camera.status()["state"])
        for flyer in (one, two):
            yield from bps.collect(flyer)
        yield from bps.close_run()

    states: list[str] = []
    engine(plan())
    lab.camera.start()
    engine(plan())
    lab.camera.finish()
    assert states == ["acquiring", "ready", "acquiring", "acquiring"]


@pytest.mark.parametrize("end", ["resume", "abort", "stop", "halt"])
def test_a_paused_plan_stands_and_goes_on_or_leaves_the_table_safe(
    end: str, simulated_lab: Any, lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    lab.stage.x.move(0.5)
    flying = engine_in_thread(engine, bp.scan([d.meter], d.stage.x, 1.0, 21.0, 3))
    wait_until(lambda: len(values(heard, "meter_power")) == 1 and simulated_lab.is_moving())
    engine.request_pause()
    with pytest.raises(RunEngineInterrupted):
        flying()
    assert simulated_lab.is_safe(), "a pause stops what moves"
    if end == "resume":
        engine.resume()
        assert values(heard, "stage_x_setpoint") == [1.0, 11.0, 21.0]
        assert stopped_as(heard) == "success"
        return
    getattr(engine, end)()
    assert simulated_lab.is_safe()
    assert lab.stage.x.read_position().value < 20


def test_an_abort_in_mid_flight_ends_the_stream(
    lab: LabClient, d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.kickoff(d.camera.flyer(), wait=True)
        raise RuntimeError("a mistake of the plan's")

    with pytest.raises(RuntimeError, match="a mistake"):
        engine(plan())
    wait_until(lambda: lab.camera.status()["state"] == "ready")


def test_a_move_tells_how_far_it_has_come(lab: LabClient, d: Devices) -> None:
    told: list[dict[str, Any]] = []
    lab.stage.x.move(0.0)
    status = d.stage.x.set(4.0)
    status.watch(lambda **facts: told.append(facts))
    wait_until(lambda: status.done)
    assert status.success
    fractions = [facts["fraction"] for facts in told]
    assert fractions == sorted(fractions, reverse=True)
    assert any(0 < fraction < 1 for fraction in fractions)
    assert (told[0]["unit"], told[0]["target"], told[0]["name"]) == ("mm", 4.0, "stage_x")


def test_parameters_are_configuration_and_can_be_set_by_a_plan(
    d: Devices, engine: RunEngine, heard: list[Document]
) -> None:
    def plan() -> Any:
        yield from bps.configure(d.dmm, {"nplc": 10})
        yield from bp.count([d.dmm], 1)

    engine(plan())
    descriptor = next(doc for name, doc in heard if name == "descriptor")
    assert descriptor["configuration"]["dmm"]["data"]["dmm_nplc"] == 10


def engine_in_thread(engine: RunEngine, plan: Any) -> Callable[[], Any]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    running = pool.submit(engine, plan)

    def ended() -> Any:
        try:
            return running.result(20.0)
        finally:
            pool.shutdown()

    return ended


def wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = Deadline(limit_s)
    while not condition():
        assert not deadline.passed, "it did not come to that"
        block(0.01)
