"""A scan reads what an actor measures, and leaves its other streams alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import duodaq

pytest.importorskip("serial")
pytestmark = pytest.mark.serial


def test_a_scan_reads_the_channels_of_a_scpi_actor_but_not_its_events(simulated_lab: Any) -> None:
    actor = Path(__file__).parents[2] / "examples" / "own_actor.py"
    text = simulated_lab.file.read_text()
    head, rest = text.split("[instruments.dmm]")
    rest = rest.split("[instruments.shutter]")[1]
    own = f'[instruments.volt]\nruntime = "v4"\ndriver = "{actor}:Voltmeter"\nport = "dmm"\n\n'
    simulated_lab.file.write_text(f"{head}{own}[instruments.shutter]{rest}")
    with duodaq.open(simulated_lab.file) as lab:
        assert lab.volt.channels() == ["voltage"]
        assert lab.stage.channels() == ["x.position", "x.velocity"]
        run = lab.scan(lab.stage.x, [1.0, 1.5], read=[lab.volt], progress=False)
    assert run.complete
    assert len(run["voltage"]) == 2
