"""A lab file, its lab, and an instrument of it on its way: checklist, shadow, cutover, budget, rollback, recording."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duodaq import clock
from duodaq.app import Lab, LabService
from duodaq.config import load_lab
from duodaq.errors import ConfigError, CutoverError, DuodaqError, OutOfRangeError
from duodaq.migration import Budget, convert_lab, diverged, violations
from duodaq.model import ChannelInfo, Execute, SetParameter
from duodaq.storage.reading import open_run
from duodaq.testing._scripted_meter import ScriptedPowerMeter, meter_lab_file
from duodaq.v4.instruments import Newport1830C

POLLED = """\
passive = true
poll.power = { call = "read_power", unit = "W", every = "20 ms" }
"""


@pytest.fixture
def meter() -> ScriptedPowerMeter:
    return ScriptedPowerMeter()


@pytest.fixture
async def lab(tmp_path: Path, meter: ScriptedPowerMeter) -> AsyncIterator[Lab]:
    made = Lab(load_lab(meter_lab_file(tmp_path, POLLED)), transports={"meter": meter.line})
    made.migration.least_shadow_s = 0.05
    await made.start()
    try:
        yield made
    finally:
        await made.shutdown()


async def shadowed(lab: Lab) -> dict[str, Any]:
    await lab.migration.start_shadow("meter")
    async with asyncio.timeout(10):
        while lab.migration.shadow_report("meter")["values"]["compared"] < 12:
            await clock.pause(0.02)
    return await lab.migration.end_shadow("meter")


async def test_a_cutover_is_refused_until_the_checklist_is_met(lab: Lab, meter: ScriptedPowerMeter) -> None:
    with pytest.raises(CutoverError, match=r"checklist is not met: shadow: there was no shadow yet.*v2 has it"):
        await lab.migration.cutover("meter", "anna")
    assert (await shadowed(lab))["within"]
    lines = {item.name: item for item in lab.migration.checklist("meter")}
    assert lines["config"].met, "that V4 needs no passive is no loss"
    with pytest.raises(ConfigError, match="nobody can answer for 'shadow'"):
        lab.migration.tick("meter", "shadow", "anna")
    lab.migration.tick("meter", "docs", "anna")
    done = await lab.migration.cutover("meter", "anna")
    assert (done["owner"], done["epoch"]) == ("v4", 1)
    assert lab.manager.definition("meter").driver == "duodaq:Newport1830C"
    assert (await lab.read("meter", "power")).value > 0
    await lab.migration.rollback("meter", "anna", "that will do")
    assert lab.manager.definition("meter").driver == "duodaq.cli.demo.power_meter:PowerMeter"
    assert violations(lab.manager.broker.log("meter")) == []
    kept = json.loads((lab.definition.directory / "migration.json").read_text())["meter"]
    assert [entry["what"] for entry in kept["log"]] == ["shadow began", "shadow ended", "ticked", "moved", "moved"]
    assert kept["ticks"]["docs"]["by"] == "anna"


@pytest.mark.parametrize(
    ("more", "edit", "unsaid"),
    [
        ("", ("", ""), ""),
        ("limits = { gain = [1, 5] }\n", ("", ""), "limits: gain: "),
        ("limits = { gain = [1, 5] }\n", ("options =", "limits = { gain = [1, 5] }\noptions ="), ""),
        ("limits = { wavelength = [400, 1100] }\n", ("", ""), ""),
        ("limits = { wavelength = [400, 1100] }\n", ("limits = {wave", "# limits = {wave"), "limits: wavelength_nm: "),
    ],
    ids=["nothing is lost", "limits are lost", "written by hand", "turned", "taken out by hand"],
)
async def test_the_list_tells_what_a_lab_file_that_says_v4_already_does_not_say(
    tmp_path: Path, meter: ScriptedPowerMeter, more: str, edit: tuple[str, str], unsaid: str
) -> None:
    file = meter_lab_file(tmp_path, POLLED + more)
    lab = Lab(load_lab(file), transports={"meter": meter.line})
    turned = convert_lab(file.read_text())
    head, mark, kept = turned.text.partition("# as it was")
    file.write_text(head.replace(*edit) + mark + kept)
    await lab.start()
    try:
        await lab.migration.handle({"do": "status", "instrument": "meter"})
        line = next(item for item in lab.migration.checklist("meter") if item.name == "config")
    finally:
        await lab.shutdown()
    assert line.met is not bool(unsaid)
    assert unsaid in line.why


async def test_a_forced_cutover_is_logged_by_name(lab: Lab) -> None:
    await lab.migration.cutover("meter", "bert", force=True)
    forced = next(e for e in lab.migration.status("meter")[0]["log"] if e["what"] == "forced")
    assert forced["by"] == "bert"
    assert any(line.startswith("shadow") for line in forced["unmet"])


@pytest.mark.alone("it is back within 1 s of the budget being spent")
async def test_a_spent_budget_brings_it_back_by_itself_within_a_second(lab: Lab, meter: ScriptedPowerMeter) -> None:
    lab.migration.budget = Budget(errors=3, within_s=10.0)
    await lab.migration.cutover("meter", "anna", force=True)
    meter.instead["Q?"] = "what?"  # a question that V4 alone asks
    async with asyncio.timeout(20):
        while lab.migration._poll_failures("meter") < 3:
            await clock.pause(0.005)
        spent_s = clock.monotonic_s()
        while lab.manager.definition("meter").runtime != "v2":
            await clock.pause(0.005)
    assert clock.monotonic_s() - spent_s < 1.0
    async with asyncio.timeout(5):
        while (last := lab.migration.status("meter")[0]["log"][-1])["by"] != "the budget":
            await clock.pause(0.005)
    assert (last["what"], last["to"]) == ("moved", "v2")
    assert "3 errors" in last["why"]
    assert (await lab.read("meter", "power")).value > 0
    assert violations(lab.manager.broker.log("meter")) == []


async def test_limits_of_a_stanza_are_kept_to_in_v4_under_either_name(
    tmp_path: Path, meter: ScriptedPowerMeter
) -> None:
    file = meter_lab_file(tmp_path, POLLED + "limits = { wavelength = [400, 1100] }\n")
    lab = Lab(load_lab(file), transports={"meter": meter.line})
    await lab.start()
    try:
        await lab.migration.cutover("meter", "anna", force=True)
        for name in ("wavelength", "wavelength_nm"):
            with pytest.raises(OutOfRangeError, match="1500 is outside the limits 400 … 1100"):
                await lab.manager.command("meter", SetParameter(name, 1500))
        await lab.manager.command("meter", SetParameter("wavelength", 800))
    finally:
        await lab.shutdown()
    assert set(meter.wavelengths()) == {800}


OWN = """\
from duodaq.model import PollDefinition
from duodaq.v4.instruments import InstrumentActor, Parameter


async def read_power(actor):
    return float(await actor.port.exchange(b"D?\\n", holder=actor.context.holder))


class Own4(InstrumentActor):
    parameters = {"power": Parameter(read_power, unit="W")}
    channels = (PollDefinition("power", 0.05, "W", read="power"),)
"""


async def test_a_running_lab_learns_of_an_own_actor_by_its_file_and_a_handle_keeps_the_names_it_knows(
    tmp_path: Path, meter: ScriptedPowerMeter
) -> None:
    file = meter_lab_file(tmp_path, POLLED)
    (tmp_path / "own.py").write_text(OWN)
    text = file.read_text()
    lab = Lab(load_lab(file), transports={"meter": meter.line})
    file.write_text(text.replace('codec = "newport1830c"', "idle_ms = 20"))
    await lab.start()
    try:
        (before,) = await lab.migration.handle({"do": "status", "instrument": "meter"})
        assert not before["checklist"][0]["met"], "of itself V4 has nothing for a port without a codec"
        file.write_text(convert_lab(text, {"meter"}, {"meter": "./own.py:Own4"}, tmp_path).text)
        await lab.migration.cutover("meter", "anna", force=True)
        assert lab.manager.definition("meter").driver == "./own.py:Own4"
        assert await lab.manager.command("meter", Execute("read_power")) > 0
        with pytest.raises(OutOfRangeError, match="there are none; its parameters are power; its channels are power"):
            await lab.manager.command("meter", Execute("set_wavelength", (700,)))
        with pytest.raises(OutOfRangeError, match=r"it is a parameter: get\('power'\) reads it"):
            await lab.manager.command("meter", Execute("power", (1, 2)))
        await lab.migration.rollback("meter", "anna")
        await lab.manager.command("meter", Execute("set_wavelength", (700,)))
    finally:
        await lab.shutdown()
    assert meter.wavelengths() == {700: 1}


class InMilliwatts(Newport1830C):
    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        return (ChannelInfo("meter", "power", "mW", "scalar", "v4"),)


async def test_another_unit_than_before_brings_it_back(lab: Lab) -> None:
    v2 = lab.manager.definition("meter")
    v4 = replace(v2, runtime="v4", driver=InMilliwatts, polls=(), args={"rate_hz": 50})
    lab.migration.routes["meter"] = (v2, v4)
    async with asyncio.timeout(10):
        while not lab.manager.channels()[0].unit:
            await clock.pause(0.01)
        await lab.migration.cutover("meter", "anna", force=True)
        while (last := lab.migration.status("meter")[0]["log"][-1])["by"] != "the budget":
            await clock.pause(0.01)
    assert "power was in W and is in mW" in last["why"]
    assert lab.manager.definition("meter").runtime == "v2"


@pytest.mark.parametrize(
    ("before", "now", "silent_s", "period_s", "found"),
    [
        ({"p": "W"}, {"p": "W"}, 0.0, 0.1, ""),
        ({"p": "W"}, {}, 0.0, 0.1, ""),
        ({"p": "W"}, {"p": "mW"}, 0.0, 0.1, "p was"),
        ({}, {}, 1.5, 0.1, "nothing has come"),
        ({}, {}, 1.5, 1.0, ""),
        ({}, {}, 99.0, 0.0, ""),
    ],
)
def test_what_a_divergence_is(
    before: dict[str, str], now: dict[str, str], silent_s: float, period_s: float, found: str
) -> None:
    assert diverged(before, now, silent_s, period_s).startswith(found)
    assert bool(diverged(before, now, silent_s, period_s)) is bool(found)


async def recorded(lab: Lab, more: int) -> None:
    """Until so many more powers have been given to the recorder."""

    def given() -> int:
        rows = lab.manager.v4_data.ledger().rows()
        return sum(row.offered for row in rows if (row.subscriber, row.stream) == ("recorder", "meter.power"))

    before = given()
    async with asyncio.timeout(20):
        while given() < before + more:
            await clock.pause(0.005)


async def test_a_recording_goes_on_across_a_cutover_and_back(lab: Lab, tmp_path: Path) -> None:
    directory = await lab.start_recording(tmp_path / "run")
    await recorded(lab, 3)
    await lab.migration.cutover("meter", "anna", force=True)
    await recorded(lab, 3)
    await lab.migration.rollback("meter", "anna")
    await recorded(lab, 3)
    summary = await lab.stop_recording()
    assert summary.complete
    rows = open_run(directory)["meter.power"].to_arrow()
    numbers = rows.column("sequence").to_pylist()
    assert len(numbers) > 8
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_client_asks_for_all_of_it_by_one_request(lab: Lab) -> None:
    service = LabService(lab)

    async def ask(do: str, **facts: Any) -> Any:
        return await service.handle("migrate", {"do": do, **facts})

    assert (await ask("status"))[0]["stage"] == "v2"
    await ask("shadow", instrument="meter")
    assert (await ask("status", instrument="meter"))[0]["stage"] == "shadow"
    assert (await ask("report", instrument="meter"))["markdown"].startswith("# Shadow of meter")
    await ask("end_shadow", instrument="meter")
    await ask("cutover", instrument="meter", by="anna", force=True)
    described = (await service.handle("describe", {}))["instruments"][0]
    assert (described["runtime"], described["driver"]) == ("v4", "duodaq:Newport1830C")
    with pytest.raises(CutoverError) as failed:
        await ask("cutover", instrument="meter", by="anna")
    assert failed.value.owner == "v4"
    await ask("rollback", instrument="meter", by="anna", why="enough")
    with pytest.raises(DuodaqError, match="dance"):
        await ask("dance")


async def test_one_that_moved_and_whose_stanza_has_forgotten_v2_is_retired(lab: Lab) -> None:
    await shadowed(lab)
    kept = lab.migration.last_report("meter")
    assert kept.startswith("# Shadow of meter: within tolerance")
    await lab.migration.cutover("meter", "anna", force=True, write=True)
    (before,) = await lab.migration.handle({"do": "status", "instrument": "meter"})
    assert (before["stage"], before["last_shadow"]["within"]) == ("v4", True)
    file = lab.definition.file
    assert file is not None
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("#")))
    lab.migration._routes.forget("meter")
    (after,) = await lab.migration.handle({"do": "status", "instrument": "meter"})
    assert after["stage"] == "retired"
    with pytest.raises(DuodaqError):
        await lab.migration.rollback("meter", "anna")
    assert lab.manager.definition("meter").runtime == "v4"
