"""The program of the specification, in a script of its own and inside a running event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import duodaq
from duodaq.app import LabClient
from duodaq.bluesky import ScanRun
from duodaq.errors import LifecycleError, OutOfRangeError, PortBusyError, RefusedError, UnsafeStateError

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial


def use(lab: LabClient) -> ScanRun:
    lab.stage.x.home()
    lab.stage.x.move(12.5)
    assert lab.stage.x.read_position().value == pytest.approx(12.5, abs=1e-3)
    lab.dmm.driver.nplc = 10
    assert lab.dmm.driver.nplc == 10
    lab.dmm.driver.nplc = np.float64(0.2)
    reading = lab.dmm.read("voltage")
    assert (reading.unit, reading.channel) == ("V", "voltage")
    run = lab.scan(lab.stage.x, np.linspace(0, 1, 3), read=[lab.dmm], settle_s=0.05, sample="knife 3", progress=False)
    assert run.complete
    data = run.to_xarray()
    assert data.voltage.shape == (3,)
    assert data.voltage.attrs["units"] == "V"
    assert data.stage_x.values == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)
    assert run.start["sample"] == data.attrs["sample"] == run.metadata["sample"] == "knife 3"
    assert run.metadata.keys() == {"sample"}
    lab.stop_all()
    with pytest.raises(UnsafeStateError, match="stop-all is latched"):
        lab.stage.x.move(2.0)
    lab.reset_stop("a test")
    lab.stage.x.move(0.0)
    return run


def test_a_private_lab_does_all_of_it(simulated_lab: Any) -> None:
    with duodaq.open(simulated_lab.file) as lab:
        use(lab)
        report = lab.close()
    assert report.clean
    assert simulated_lab.is_safe()
    with pytest.raises(LifecycleError, match="closed"):
        lab.stage.x.move(1.0)


def test_who_opens_a_lab_twice_in_one_program_is_told_to_close_it_first(simulated_lab: Any) -> None:
    with duodaq.open(simulated_lab.file) as lab:
        with pytest.raises(PortBusyError) as caught:
            duodaq.open(simulated_lab.file)
        assert f"this program has it open already, as lab {simulated_lab.name} — lab.close() first" in str(caught.value)
        assert "another program" not in str(caught.value)
        assert lab.dmm.read("voltage").unit == "V"
    with duodaq.open(simulated_lab.file) as again:
        assert again.name == lab.name


def test_it_works_inside_a_running_loop_as_jupyter_has(simulated_lab: Any) -> None:
    async def cell() -> None:
        with duodaq.open(simulated_lab.file) as lab:
            use(lab)

    asyncio.run(cell())


def test_a_running_lab_does_all_of_it_for_who_attaches(simulated_lab: Any, start_program: Callable[..., Any]) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as lab:
        use(lab)
        shapes(lab)

    async def cell() -> None:
        with duodaq.connect(simulated_lab.name) as lab:
            assert lab.dmm.read().unit == "V"

    asyncio.run(cell())
    host.interrupt()
    assert host.end() == 0


def shapes(lab: LabClient) -> None:
    """What travels, and how things show themselves."""
    assert lab.stage.call("read_position", "x") == pytest.approx(0.0, abs=1e-3)
    assert lab.stage.set("x.limits", np.array([0.0, 20.0])) == [0.0, 20.0]
    with pytest.raises(OutOfRangeError, match="25"):
        lab.stage.x.move(np.float32(25.0))
    assert repr(lab.stage.x) == "<axis stage.x, mm, 0 … 25>"
    assert repr(lab.dmm) == "<dmm: pymeasure.instruments.hp:HP34401A in v2>"
    assert len(repr(lab)) < 120
    assert repr(lab.dmm.read("voltage")).startswith("<dmm.voltage ")


def test_the_drivers_own_interface_is_proxied(simulated_lab: Any) -> None:
    with duodaq.open(simulated_lab.file) as lab:
        driver = lab.dmm.driver
        assert driver.id.startswith("HEWLETT-PACKARD,34401A")
        driver.nplc = 1
        driver.reset()
        assert driver.nplc == 10
        with pytest.raises(RefusedError, match="did you mean 'nplc'"):
            _ = driver.nplcc
        with pytest.raises(RefusedError, match="did you mean 'nplc'"):
            driver.nplcc = 3
        with pytest.raises(AttributeError):
            _ = driver._repr_html_
        assert lab.shutter.driver.open() is True
        assert lab.shutter.driver.is_open() is True
    assert simulated_lab.is_safe()


def test_a_killed_client_changes_nothing_and_its_motion_is_stopped(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Any
) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as lab:
        lab.stage.x.home()
        lab.stage.set("x.velocity", 1.0)
        script = tmp_path / "client.py"
        script.write_text(
            "import sys, duodaq\n"
            "lab = duodaq.connect(sys.argv[1])\n"
            "print('moving', flush=True)\n"
            "lab.stage.x.move(20.0)\n"
        )
        client = start_program(script, simulated_lab.name)
        client.wait_for("moving")
        simulated_lab.until(simulated_lab.is_moving)
        os.kill(client.pid, signal.SIGKILL)
        assert client.end() == -signal.SIGKILL
        simulated_lab.until(lambda: not simulated_lab.is_moving(), 5.0)
        assert lab.stage.x.read_position().value < 19.0
        assert {i["state"] for i in lab.status()["instruments"]} <= {"ready", "acquiring"}
        lab.stage.set("x.velocity", 10.0)
        lab.stage.x.move(0.0)
    host.interrupt()
    assert host.end() == 0


def test_a_lab_is_found_by_name_and_refused_in_sentences(simulated_lab: Any) -> None:
    with pytest.raises(LifecycleError, match="no lab"):
        duodaq.connect("nobody")


def test_a_script_that_ends_without_closing_leaves_all_safe(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "careless.py"
    script.write_text(
        "import sys, duodaq\n"
        "lab = duodaq.open(sys.argv[1])\n"
        "print(lab.shutter.call('open'), flush=True)\n"
        "lab.stage.x.move_soon(20.0)\n"
        "raise SystemExit(7)\n"
    )
    program = start_program(script, simulated_lab.file)
    program.wait_for("True")
    assert program.end() == 7
    assert simulated_lab.is_safe()


def test_frames_and_recordings_cross_the_control_socket(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("pyvcam")
    with simulated_lab.file.open("a") as file:
        file.write('[instruments.camera]\nruntime = "v4"\ndriver = "duodaq:PvcamActor"\nargs = { simulated = true }\n')
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as lab:
        assert lab.camera.snap(roi=(0, 0, 64, 32)).shape == (32, 64)
        directory = lab.start_recording(tmp_path / "record")
        frame = lab.camera.read()
        assert (np.asarray(frame).shape, frame.value.dtype) == ((2048, 2048), np.uint16)
        lab.dmm.read("voltage")
        summary = lab.stop_recording()
        assert summary["complete"]
        assert summary["files"]["camera.frames.arrows"] == 1
        assert summary["files"]["dmm.voltage.arrows"] >= 1
        with pa.OSFile(str(directory / "camera.frames.arrows")) as source:
            (batch,) = pa.ipc.open_stream(source)
        (pixels,) = np.load(directory / "camera.frames.npy")
        assert np.array_equal(pixels, frame.value)
        assert batch.column("pixels_frame").to_pylist() == [0]
        assert lab.stage.call("read_axis_state", "x")["unit"] == "mm"
        assert {p["instrument"] for p in lab.parameters()} >= {"stage", "camera"}
    host.interrupt()
    assert host.end() == 0


def test_an_instrument_that_fails_is_shown_with_its_cause_and_disturbs_no_other(simulated_lab: Any) -> None:
    simulated_lab.rewrite("duodaq.cli.demo.shutter:Shutter", "./bad.py:Bad")
    (simulated_lab.file.parent / "bad.py").write_text(
        "from duodaq.cli.demo.shutter import Shutter\n\n"
        "class Bad(Shutter):\n    def __init__(self, serial):\n        raise RuntimeError('not calibrated')\n"
    )
    with duodaq.open(simulated_lab.file) as lab:
        assert lab.status()["v2"] == "degraded"
        assert "not calibrated" in lab.shutter.status()["message"]
        with pytest.raises(LifecycleError, match="not calibrated"):
            lab.shutter.call("shut")
        assert lab.dmm.read().unit == "V"
        lab.dmm.restart()
        assert lab.dmm.status()["state"] == "acquiring"
