"""The demo's lab on a recording of its wire: the same drivers, the same scan, equal readings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pyarrow import ipc

import duodaq
from duodaq.app._opening import LABS_HERE
from duodaq.bluesky import ScanRun
from duodaq.cli.demo._table import set_up
from duodaq.model import WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.sim.replay import launch_replay

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

PORTS = ("stage", "meter", "dmm", "shutter")
POINTS = 11


def without_camera(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return text[: text.index("[instruments.camera]")]


def experiment(file: Path, target: Path | None = None) -> ScanRun:
    """What the demo does but for its camera; the wire goes to `target`."""
    with duodaq.open(file) as lab:
        lab.start_recording(file.with_suffix(".run"))
        assert lab.shutter.call("open") is True
        lab.stage.x.home()
        run = lab.scan(lab.stage.x, np.linspace(1, 9, POINTS), read=[lab.meter, lab.dmm], settle_s=0.02, progress=False)
        assert lab.shutter.call("shut") is False
        for instrument in (lab.meter, lab.dmm):
            instrument.finish()
        lab.stop_recording()
        broker = next(here.manager.broker for here in LABS_HERE if here.definition.name == lab.name)
        addresses = {status.name: {"address": status.address} for status in broker.status()}
        records: list[WireRecord] = []
        records += [record for port in PORTS for record in broker.log(port)]
        for port in PORTS:
            broker.subscribe_log(port, records.append)
        lab.close()  # it writes the stage's stop, which belongs to the recording
    if target is not None:
        with ipc.new_stream(target, schema := wire(addresses, lab.name)) as writer:
            writer.write_batch(wire_batch(records, schema))
    assert run.complete
    return run


def test_the_demos_drivers_run_to_the_end_on_its_recording_and_read_the_same_at_each_point(tmp_path: Path) -> None:
    wirelog = tmp_path / "wire.arrows"
    with set_up(tmp_path, f"replay-{os.getpid()}", seed=1) as bench:
        bench.lab_file.write_text(text := without_camera(bench.lab_file), encoding="utf-8")
        addresses = {port: getattr(bench, port).address for port in PORTS}
        there = experiment(bench.lab_file, wirelog)
    with launch_replay(wirelog, unknown="stop") as replay:
        for port, address in addresses.items():
            text = text.replace(f'"{address}"', f'"{replay.addresses[port]}"')
        again = tmp_path / "again.toml"
        again.write_text(text, encoding="utf-8")
        here = experiment(again)
        assert replay.report()["stage"]["unknown"] == {}
    for channel in ("stage_x", "power", "reference"):
        assert list(here[channel]) == list(there[channel]), channel
