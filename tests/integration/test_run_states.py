"""A recording and a log say when an instrument was lost and was there again, and how it stood when they began."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.dial_line import DialLine

import duodaq
from duodaq import clock
from duodaq.app import Lab
from duodaq.clock import pause
from duodaq.model import (
    AlarmDefinition,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
    Scalar,
)
from duodaq.schema import scalar_batch
from duodaq.storage.reading import differences
from duodaq.testing import logged

DRIVER = """\
class Dial:
    def __init__(self, serial):
        self.serial = serial

    def angle(self):
        self.serial.write(b"A?\\n")
        return float(self.serial.readline())
"""


def lab_in(folder: Path, line: DialLine, worker: Any = "inline", *, polled: bool = True) -> Lab:
    (folder / "dial.py").write_text(DRIVER)
    polls = (PollDefinition("angle", 0.02, call="angle", unit="deg"),) if polled else ()
    dial = InstrumentDefinition("dial", "v2", "./dial.py:Dial", port="line", passive=True, polls=polls, base_dir=folder)
    definition = LabDefinition(
        "outage",
        directory=folder,
        ports=(PortDefinition("line", serial={"path": "nowhere"}, idle_ms=1, timeout_s=0.2),),
        instruments=(dial,),
        v2=RuntimeDefinition("v2", worker),
        alarms=(AlarmDefinition("hot", "x", "y", high=0.5),),
    )
    return Lab(definition, transports={"line": line})


async def comes_to(lab: Lab, *states: str) -> None:
    async with asyncio.timeout(30):
        while lab.health().instruments[0].state not in states:
            await pause(0.005)


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_driver_that_asks_nothing_by_itself_is_not_ready_while_its_line_is_lost(
    tmp_path: Path, worker: str
) -> None:
    line = DialLine("dial")
    async with lab_in(tmp_path, line, worker, polled=False) as lab:
        await comes_to(lab, "ready")
        with logged() as lines:
            line.unplug()
            async with asyncio.timeout(15):
                while [one.get("attempt") for one in lines if one["event"] == "instrument lost"] != [1, 2, 3]:
                    await pause(0.01)
        line.replug()
        await comes_to(lab, "ready")
        assert await lab.command("dial", Execute("angle")) == 4.0


def told(run: Any) -> list[dict[str, Any]]:
    return [event.doc for event in duodaq.open_run(run).events if event.name == "state"]


async def test_an_outage_is_in_the_events_of_the_recording_and_of_the_log(tmp_path: Path) -> None:
    line, heard = DialLine("dial"), list[Any]()
    async with lab_in(tmp_path, line) as lab:
        await comes_to(lab, "ready", "acquiring")
        recording = await lab.start_recording()
        log = await lab.log("room", rotate=None, finalise=())
        line.unplug()
        await comes_to(lab, "error", "disconnected")
        lab.observers.listeners.append(lambda doc: heard.append(doc) if doc["new"] == "acquiring" else None)
        line.replug()
        async with asyncio.timeout(30):
            while not heard:
                await pause(0.005)
        await lab.stop_recording()
        await lab.stop_log("room")
    away, back = told(recording)
    assert told(log) == [away, back]
    assert (away["instrument"], away["runtime"], away["new"], away["old"]) == ("dial", "v2", "error", "acquiring")
    assert "line" in away["cause"]
    assert back["new"] == "acquiring"
    assert away["t_ns"] < back["t_ns"]
    run = duodaq.open_run(recording)
    (outage,) = run.outages
    assert (outage.instrument, outage.why) == ("dial", away["cause"])
    assert outage.since is not None
    assert outage.until is not None
    assert run.start < outage.since < outage.until < run.stop
    out = io.StringIO()
    Console(file=out, width=200).print(run)
    at, back_at = (moment.astimezone().strftime("%H:%M:%S") for moment in (outage.since, outage.until))
    assert f"dial was lost at {at}, back at {back_at}: its line was lost [port line]" in out.getvalue()
    assert "dial was lost at" in run._repr_mimebundle_()["text/html"]


async def test_what_is_wrong_already_when_a_run_begins_is_in_its_provenance(tmp_path: Path) -> None:
    line = DialLine("dial")
    async with lab_in(tmp_path, line) as lab:
        line.unplug()
        lab.manager.v4_data.publish(scalar_batch([Scalar("x", "y", "", clock.utc_ns(), 0, 1.0, "v4")]))
        await comes_to(lab, "error", "disconnected")
        async with asyncio.timeout(30):
            while lab.alarms.status()[0].state != "raised":
                await pause(0.005)
        recording = await lab.start_recording()
        await lab.stop_recording()
    known = duodaq.open_run(recording).provenance
    assert known["instruments"]["dial"]["state"] in ("error", "disconnected")
    assert [(one["alarm"], one["state"]) for one in known["alarms"]] == [("hot", "raised")]
    assert told(recording) == []
    (outage,) = duodaq.open_run(recording).outages
    assert (outage.instrument, outage.since, outage.until) == ("dial", None, None)
    assert "line" in outage.why
    assert differences(duodaq.open_run(recording), duodaq.open_run(recording)) == []
