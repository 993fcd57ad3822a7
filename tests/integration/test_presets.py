"""Presets of settings: saved, compared, loaded whole or not at all, and nothing is switched on by one."""

from __future__ import annotations

import asyncio
import re
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duodaq.app import Client, Lab, acting
from duodaq.app._channel import LocalChannel
from duodaq.app._client import _client
from duodaq.app._preset_rules import left_to_a_person
from duodaq.cli import _preset_work
from duodaq.cli._presets import presets
from duodaq.config import load_lab
from duodaq.errors import (
    ConfigError,
    LifecycleError,
    NotInControlError,
    OutOfRangeError,
    PartlySetError,
    UnsafeStateError,
)
from duodaq.model import GetParameter, InstrumentDefinition, LabDefinition, SetParameter
from duodaq.testing import RailActor, logged, rail_lab

ANNA = Client("anna", "notebook", "process 1")


class Source:
    """A driver of somebody's own, with a switch."""

    def __init__(self) -> None:
        self.voltage, self.output, self.mode = 1.0, False, "fast"


def bench(folder: Path) -> LabDefinition:
    lab = rail_lab(folder)
    rail, other = lab.instruments
    rail = replace(rail, watched=("offset", "gain"), limits={"gain": (0.0, 5.0)})
    source = InstrumentDefinition("source", "v2", Source, watched=("output", "voltage", "mode"))
    source = replace(source, passive=frozenset({"mode"}), limits={"voltage": (0.0, 10.0)})
    return replace(lab, instruments=(rail, other, source))


async def put(lab: Lab, instrument: str, **values: Any) -> None:
    for name, value in values.items():
        await lab.command(instrument, SetParameter(name, value))


def told(rows: list[Any]) -> dict[str, tuple[Any, Any, str]]:
    return {f"{row.instrument}.{row.name}": (row.now, row.then, row.what) for row in rows if row.what != "same"}


async def test_settings_come_back_as_they_were_with_where_they_come_from(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        await put(lab, "rail", gain=3, offset=-1.5)
        await put(lab, "source", voltage=2.5, mode='odd "name" \\ é')
        with acting(ANNA):
            await lab.presets.save("pinhole in", note="as on Monday")
        await put(lab, "rail", gain=1.0, offset=0.0)
        await put(lab, "source", voltage=0.0, mode="fast")
        rows = await lab.presets.diff("pinhole in")
        assert told(rows) == {
            "rail.offset": (0.0, -1.5, "set"),
            "rail.gain": (1.0, 3, "set"),
            "source.voltage": (0.0, 2.5, "set"),
            "source.mode": ("fast", 'odd "name" \\ é', "set"),
        }
        assert next(row.unit for row in rows if row.name == "offset") == "V"
        RailActor.all["rail"].said.clear()
        await lab.presets.load("pinhole in")
        assert RailActor.all["rail"].said == [("offset", -1.5), ("gain", 3)], "in the lab file's order"
        assert told(await lab.presets.diff("pinhole in")) == {}
        (facts,) = lab.presets.facts()
    assert (facts["by"], facts["note"], facts["lab"]) == ("anna (notebook, process 1)", "as on Monday", "rails")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", facts["saved"])
    text = (tmp_path / "presets" / "pinhole in.toml").read_text()
    assert tomllib.loads(text)["instruments"]["rail"]["offset"] == {"value": -1.5, "unit": "V"}


async def test_out_of_limits_is_refused_whole_before_anything_is_set(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        with pytest.raises(OutOfRangeError, match="outside the limits 0 … 5"):
            await put(lab, "rail", gain=7)
        await lab.presets.save("one")
        file = tmp_path / "presets" / "one.toml"
        whole = file.read_text()
        for old, new, error, words in (
            (
                "gain = { value = 1.0",
                "gain = { value = 7.0",
                OutOfRangeError,
                "is outside the limits 0 … 5",
            ),
            ("gain = { value = 1.0", 'gain = { value = "much"', OutOfRangeError, "text, and it is a number now"),
            ("gain = { value = 1.0", "gain = { value = true", OutOfRangeError, "yes or no, and it is a number"),
            ("gain = ", "gian = ", LifecycleError, "rail.gian: it has no such setting"),
            ("[instruments.source]", "[instruments.sauce]", LifecycleError, "no such instrument"),
            ('unit = "V"', 'unit = "mV"', LifecycleError, "saved in mV, and is in V now"),
        ):
            file.write_text(whole.replace("value = 0.0", "value = 2.0", 1).replace(old, new, 1))
            with pytest.raises(error, match=re.escape(words)) as caught:
                await lab.presets.load("one")
            assert "nothing was set" in str(caught.value)
        assert RailActor.all["rail"].said == []


async def test_nothing_is_switched_on_and_what_makes_safe_is_first(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        await put(lab, "rail", lamp=True)
        await put(lab, "source", output=True)
        await lab.presets.save("lit")
        await put(lab, "rail", lamp=False, gain=2)
        await put(lab, "source", output=False, voltage=3.0)
        await lab.presets.save("dark")
        rows = await lab.presets.load("lit")
        assert told(rows)["rail.lamp"] == (False, True, "left")
        assert told(rows)["source.output"] == (False, True, "left")
        assert not RailActor.all["rail"].has["lamp"]
        assert RailActor.all["rail"].has["gain"] == 1.0, "the rest is set"
        await put(lab, "rail", lamp=True)
        await put(lab, "source", output=True)
        RailActor.all["rail"].said.clear()
        rows = await lab.presets.load("dark")
        assert [(row.instrument, row.name) for row in rows[:2]] == [("rail", "lamp"), ("source", "output")]
        assert RailActor.all["rail"].said == [("lamp", False), ("gain", 2)]


class Beamline:
    """A driver of somebody's own, with much that opens, lights and moves."""

    def __init__(self) -> None:
        for name, value, _ in BEAMLINE:
            setattr(self, name, value)


BEAMLINE: tuple[tuple[str, Any, Any], ...] = (
    ("shutter_state", 0, 1),
    ("relay", 0, 1),
    ("beam", 0, 1),
    ("gate", False, True),
    ("output_state", 0, 1),
    ("laserState", "OFF", "RUN"),
    ("source_mode", "standby", "emission"),
    ("position_mm", 12.5, 0.0),
    ("pump_current", 0.0, 20.0),
    ("interlock", True, False),
    ("beam_blocked", True, False),
    ("attenuation", 40.0, 0.0),
    ("whatever", "this", "that"),
    ("number", 3, 4),
)


async def test_what_a_driver_that_is_not_known_might_do_is_left(tmp_path: Path) -> None:
    names = tuple(name for name, _, _ in BEAMLINE)
    lab = bench(tmp_path)
    line = InstrumentDefinition("line", "v2", Beamline, watched=names, limits={"attenuation": (0.0, 60.0)})
    safe = {"shutter_state": 0, "relay": 0, "laserState": "OFF", "source_mode": "standby", "pump_current": 0.0}
    async with Lab(replace(lab, instruments=(*lab.instruments, line))) as lab:
        await lab.presets.save("before", ["line"])
        await put(lab, "line", **{name: then for name, _, then in BEAMLINE})
        await lab.presets.save("after", ["line"])
        rows = await lab.presets.load("before")
        assert {row.name: row.then for row in rows if row.what == "set"} == {
            **safe,
            "beam": 0,
            "output_state": 0,
            "gate": False,
        }
        await put(lab, "line", **{name: now for name, now, _ in BEAMLINE})
        rows = await lab.presets.load("after")
        assert {row.what for row in rows} == {"left"}
        why = {row.name: row.why for row in rows}
        assert all("the lab file allows it" in said for said in why.values())
        assert why["position_mm"].startswith("a preset moves nothing")
        assert why["pump_current"].endswith("limits.pump_current = [lowest, highest]")
        assert await lab.command("line", GetParameter("shutter_state")) == 0


def left(name: str, now: Any, then: Any, driver: Any = Beamline, **more: Any) -> bool:
    emits = more.pop("emits", False)
    definition = InstrumentDefinition("line", "v4" if driver is not Beamline else "v2", driver, **more)
    return bool(left_to_a_person(definition, {"name": name, "unit": "", "emits": emits}, now, then))


def test_what_the_lab_file_allows_is_set() -> None:
    limits = {"pump_current": (0.0, 20.0), "gate": (0, 1), "position_mm": (0.0, 25.0), "power_on": (0, 1)}
    assert not left("pump_current", 0.0, 20.0, limits=limits)
    assert left("gate", 0, 1, limits=limits)
    assert left("power_on", 0, 1, limits=limits)
    assert left("position_mm", 0.0, 1.0, limits=limits)
    for name in ("position_mm", "shutter_state", "whatever"):
        assert not left(name, 0, 1, passive=frozenset({name}))
        assert left(name, 0, 1, passive=frozenset({"other"}))


def test_an_actor_says_itself_what_moves_and_is_not_believed_of_switches() -> None:
    assert not left("gain", 1, 3, RailActor)
    assert not left("function", "VOLT", "CURR", RailActor)
    assert left("function", "OFF", "SIN", RailActor)
    assert left("gate", False, True, RailActor)
    assert left("drain_voltage", 1.0, 2.0, RailActor)
    assert left("wavelength_nm", 800.0, 810.0, "duodaq:MaiTai", emits=True)
    assert not left("wavelength_nm", 800.0, 810.0, "duodaq:MaiTai", emits=True, limits={"wavelength_nm": (700, 1000)})
    assert left("shutter", False, True, "duodaq:MaiTai", emits=True)
    assert not left("filter", False, True, "duodaq:Newport1830C")
    assert left("gain", 1, 3, "lab.actors:Mine"), "its class is known where it runs alone"


async def test_control_and_a_latched_stop_refuse_it_whole(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        await lab.presets.save("one")
        await put(lab, "rail", gain=2)
        await put(lab, "source", voltage=3.0)
        lab.control.take("source", client=ANNA)
        with pytest.raises(NotInControlError, match="anna"):
            await lab.presets.load("one")
        assert RailActor.all["rail"].has["gain"] == 2, "nothing of it was set"
        await lab.presets.load("one", ["rail"])
        assert RailActor.all["rail"].has["gain"] == 1.0
        lab.control.release("source", ANNA)
        await put(lab, "rail", gain=2)
        await lab.stop_all()
        with pytest.raises(UnsafeStateError, match=r"source\.voltage"):
            await lab.presets.load("one")
        assert RailActor.all["rail"].has["gain"] == 2
        lab.reset_stop("a test")


async def test_a_device_that_refuses_one_is_told_with_what_was_set(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        await lab.presets.save("one")
        await put(lab, "rail", gain=2, offset=1.0)
        await put(lab, "source", voltage=3.0)
        RailActor.broken["gain"] = "it is jammed"
        with pytest.raises(PartlySetError) as caught:
            await lab.presets.load("one")
    error = caught.value
    assert error.done == ["rail.offset: 1.0 → 0.0 V"]
    assert error.failed == "rail.gain"
    assert error.not_done == ["source.voltage"]
    assert str(error).endswith("set before: rail.offset: 1.0 → 0.0 V; not tried: source.voltage")


async def test_names_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        for name in ("", "..", "a/b", "a\0b", ".hidden", "x" * 200, "end."):
            with pytest.raises(ConfigError, match="cannot be the name"):
                await lab.presets.save(name)
        await lab.presets.save("one", ["rail"])
        with pytest.raises(LifecycleError, match="there is a preset 'one' already"):
            await lab.presets.save("one")
        await lab.presets.save("one", ["other"], replace=True)
        assert [*lab.presets.read("one").settings] == ["other"]
        with pytest.raises(ConfigError, match=r'no preset \'won\'\. Did you mean "one"\? There are: one'):
            await lab.presets.load("won")
        with pytest.raises(LifecycleError, match="nothing of rail; it has: other"):
            await lab.presets.diff("one", ["rail"])
        for text in ("[", "[presets]\n", "instruments = 3", "[instruments]\nother = 3", "[instruments.other]\ngain={}"):
            (tmp_path / "presets" / "bad.toml").write_text(text)
            with pytest.raises(ConfigError, match=r"bad\.toml"):
                lab.presets.read("bad")
        assert [("error" in one) for one in lab.presets.facts()] == [True, False]
        lab.presets.remove("one")
        assert lab.presets.names() == ["bad"]


def test_from_a_notebook_and_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _client(LocalChannel(Lab(bench(tmp_path)))) as lab:
        monkeypatch.setattr(_preset_work, "connect", lambda _: nullcontext(lab))
        assert lab.presets.save("one", [lab.rail, "source"])["rail"]["gain"] == 1.0
        assert list(lab.presets) == ["one"]
        assert lab.presets["one"]["source"]["mode"] == "fast"
        lab.rail.set("gain", 4)
        diff = lab.presets.diff("one")
        assert repr(diff).splitlines()[1].split() == ["rail.gain", "4", "1"]
        assert ">rail.gain</td>" in diff._repr_html_()
        loaded = lab.presets.load("one")
        assert (len(loaded), capsys.readouterr().out) == (1, ""), "shown once, by who shows results"
        assert "rail.gain" in repr(loaded)
        assert repr(lab.presets.diff("one")) == f"<no differences in {len(diff.rows)} settings>"
        lab.rail.set("gain", 4)

        def said(*words: str) -> Any:
            return CliRunner().invoke(presets, words)

        assert said("save", "two", "--only", "rail", "--note", "later").exit_code == 0
        assert "later" in said("list").output
        assert "rail.gain" in (found := said("diff", "one")).output
        assert found.exit_code == 1
        assert said("diff", "one", "two").exit_code == 1
        for alone in (said("load", "one"), said("load", "one", "--json")):
            assert "nobody is there to be asked; nothing was set. Say --yes" in str(alone.exception)
        assert lab.rail.get("gain") == 4.0
        assert "1 set." in said("load", "one", "--yes").output
        assert "0 set." in said("load", "one").output, "nothing to be asked"
        assert said("diff", "one").exit_code == 0
        lab.rail.set("gain", 4)
        RailActor.broken["gain"] = "jammed"
        assert '"failed": "rail.gain"' in (broken := said("load", "one", "--json", "--yes")).output
        assert broken.exit_code == 1


def test_limits_are_in_the_lab_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    stanza = '[instruments.a]\nruntime = "v2"\ndriver = "./a.py:A"\nlimits = { gain = [0, 5] }\n'
    file.write_text(stanza)
    (tmp_path / "a.py").write_text("class A:\n    gain = 1.0\n")
    assert load_lab(file).instruments[0].limits == {"gain": (0.0, 5.0)}
    file.write_text(stanza.replace("[0, 5]", "[5, 0]"))
    with pytest.raises(ConfigError, match="must rise"):
        load_lab(file)


async def test_of_two_that_save_one_name_at_once_one_is_refused(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        saves = (lab.presets.save("one", note=note) for note in ("first", "second"))
        told = await asyncio.gather(*saves, return_exceptions=True)
        assert [type(one).__name__ for one in told] == ["Preset", "LifecycleError"]
        assert lab.presets.read("one").facts["note"] == "first"


async def test_a_load_that_is_cancelled_midway_says_what_was_set(tmp_path: Path) -> None:
    async with Lab(bench(tmp_path)) as lab:
        await lab.presets.save("one")
        await put(lab, "rail", offset=2.0, gain=3.0)
        carry_out, in_hand = lab.command, asyncio.Event()

        async def command(instrument: str, command: Any, deadline_s: float | None = None) -> Any:
            if command.name == "gain":
                in_hand.set()
                await asyncio.Event().wait()
            return await carry_out(instrument, command, deadline_s)

        with logged() as lines, pytest.MonkeyPatch.context() as patched:
            patched.setattr(lab, "command", command)
            loading = asyncio.ensure_future(lab.presets.load("one"))
            await in_hand.wait()
            loading.cancel()
            await asyncio.wait({loading})
        assert loading.cancelled()
        (line,) = [one for one in lines if one["event"] == "a preset was set in part"]
        assert (line["set"], line["failed"]) == (["rail.offset: 2.0 → 0.0 V"], "rail.gain")
        await lab.presets.load("one")
