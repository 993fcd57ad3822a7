"""Whatever ends an acquisition, a reading that its device has answered is published."""

from __future__ import annotations

from typing import Any

import pytest

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.model import (
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.testing._scripted_meter import ScriptedPowerMeter
from duodaq.testing._scripted_port import Answer

METER = InstrumentDefinition(
    "meter",
    "v4",
    "duodaq:Newport1830C",
    port="meter",
    polls=(PollDefinition("power", 0.001, "W", read="power"),),
    options={"acquire": True},
)


class SlowMeter(ScriptedPowerMeter):
    """Has counted a reading some time before it answers."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s = takes_s
        said = self.line.script
        self.line.script = lambda line: None if (a := said(line)) is None else Answer(a.data, self.takes_s)


async def until(condition: Any) -> None:
    deadline = Deadline(20)
    while not condition():
        assert not deadline.passed
        await pause(0.001)


class Rows:
    """How many rows have come to a reader so far."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._count = 0

    @property
    def count(self) -> int:
        while self._reader.occupancy:
            self._count += self._reader.get_nowait().num_rows
        return self._count


async def running(meter: SlowMeter) -> tuple[DualRuntimeManager, Rows]:
    port = PortDefinition("meter", tcp="nowhere:1", codec="newport1830c", timeout_s=5.0)
    lab = LabDefinition("last", (port,), (METER,), RuntimeDefinition("v2", "inline"), RuntimeDefinition("v4", "inline"))
    manager = DualRuntimeManager(lab, transports={"meter": meter.line})
    reader = manager.v4_data.subscribe("reader", capacity=100_000)
    await manager.start()
    return manager, Rows(reader)


@pytest.mark.parametrize("way", ["remove", "restart", "stop acquisition", "shutdown"])
async def test_the_reading_in_hand_is_published_whatever_ends_the_acquisition(way: str) -> None:
    meter = SlowMeter(0.02)
    manager, rows = await running(meter)
    for n in range(1, 4):
        await until(lambda n=n: meter.readings == 2 * n)  # it has been asked, and has not answered
        match way:
            case "remove":
                await manager.remove("meter")
                assert rows.count == meter.readings
                await manager.add(METER)
            case "restart":
                asked = meter.readings
                await manager.restart_instrument("meter")
                assert rows.count >= asked
            case "stop acquisition":
                await manager.command("meter", StopAcquisition())
                if (
                    n == 1
                ):  # what is imported for the first may hold up the loop for longer than a reading is waited for
                    await until(lambda: rows.count == meter.readings)
                assert rows.count == meter.readings
                await manager.command("meter", StartAcquisition())
            case _:
                break
    await manager.shutdown()
    assert rows.count == meter.readings


async def test_a_device_that_answers_nothing_holds_up_the_end_for_a_moment_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter = SlowMeter(0.0)
    manager, _ = await running(meter)
    await until(lambda: meter.readings > 2)
    meter.silent = True
    asked = len(meter.line.lines)
    await until(lambda: len(meter.line.lines) > asked)
    began_s = monotonic_s()
    report = await manager.remove("meter")
    assert monotonic_s() - began_s < 2.0
    assert report.outcome == "clean", report
    assert "the last reading was cut off" in caplog.text
    await manager.shutdown()
