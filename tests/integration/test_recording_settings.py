"""What a recording says that instruments were set to is what they were set to, whoever has changed it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import duodaq
from duodaq.app._settings_now import read_settings
from duodaq.errors import ConfigError, LifecycleError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    LabDefinition,
    ManagerState,
    ParameterEntry,
    PollDefinition,
    RuntimeDefinition,
    SetParameter,
)
from duodaq.testing import RailActor, rail_lab
from duodaq.workers._starter import CAN_FORK

KINDS = ["inline", *(["process"] if CAN_FORK else [])]


class Supply:
    """A class of a lab's own: what it is set to changes in its methods, too."""

    def __init__(self) -> None:
        self.range = 1
        self._volts = 0.0
        self.asked = 0

    @property
    def voltage(self) -> float:
        self.asked += 1
        return self._volts

    @voltage.setter
    def voltage(self, volts: float) -> None:
        self._volts = volts

    def ramp(self, volts: float) -> None:
        self.range = 10
        self._volts = volts

    def beep(self) -> float:
        return 0.0


def bench(folder: Path, kind: str = "inline", *, watched: tuple[str, ...] = ("voltage", "range")) -> LabDefinition:
    supply = InstrumentDefinition(
        "supply", "v2", Supply, watched=watched, polls=(PollDefinition("noise", call="beep", every_s=3600.0),)
    )
    return LabDefinition("settings", instruments=(supply,), v2=RuntimeDefinition("v2", kind), directory=folder)


def told(directory: Path, instrument: str = "supply") -> dict[str, Any]:
    """What the provenance of a run says of an instrument; stale is ("stale", value)."""
    entries = [one for one in duodaq.open_run(directory).provenance["parameters"] if one["instrument"] == instrument]
    return {one["parameter"]: ("stale", one["value"]) if one.get("stale") else one["value"] for one in entries}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_method_has_set_is_in_what_a_recording_and_a_log_say_of_themselves(
    kind: str, tmp_path: Path
) -> None:
    async with duodaq.Lab(bench(tmp_path, kind)) as lab:
        await lab.command("supply", Execute("ramp", (5.0,)))
        recording = await lab.start_recording()
        assert told(recording) == {"voltage": 5.0, "range": 10}
        await lab.command("supply", Execute("ramp", (7.0,)))
        log = await lab.log("slow")
        assert told(log) == {"voltage": 7.0, "range": 10}
        await lab.command("supply", Execute("ramp", (9.0,)))
        await lab._logs["slow"]._recording.rotate(tmp_path / "next", {})
        assert told(tmp_path / "next")["voltage"] == 9.0, "the next run of a log, too"


async def test_a_setting_that_is_not_watched_but_was_set_is_read_too(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, watched=())) as lab:
        await lab.command("supply", SetParameter("voltage", 1.0))
        await lab.command("supply", Execute("ramp", (5.0,)))
        assert told(await lab.start_recording()) == {"voltage": 5.0}


async def test_after_a_call_what_is_known_is_stale_until_it_is_read_and_nothing_is_asked(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:

        def known(name: str) -> tuple[Any, bool]:
            entry = lab.manager.parameters.get("supply", name)
            assert entry is not None
            return entry.value, entry.stale

        before = await lab.command("supply", GetParameter("asked"))
        await lab.command("supply", Execute("ramp", (5.0,)))
        assert known("voltage") == (0.0, True)
        assert known("range") == (10, False), "a plain attribute is looked at, which asks no device"
        assert await lab.command("supply", GetParameter("asked")) == before
        assert await lab.command("supply", GetParameter("voltage")) == 5.0
        assert known("voltage") == (5.0, False)
        await lab.command("supply", Execute("beep"))
        assert known("voltage") == (5.0, False), "what is polled sets nothing"


async def test_a_call_that_changes_no_plain_setting_is_no_change(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, watched=("range",))) as lab:
        await lab.command("supply", Execute("ramp", (5.0,)))
        entry = lab.manager.parameters.get("supply", "range")
        await lab.command("supply", Execute("ramp", (6.0,)))
        assert lab.manager.parameters.get("supply", "range") == entry


async def test_what_an_actor_was_set_to_is_read_from_its_device_too(tmp_path: Path) -> None:
    async with duodaq.Lab(rail_lab(tmp_path)) as lab:
        await lab.command("rail", SetParameter("gain", 2.0))
        RailActor.all["rail"].has["gain"] = 8.0  # at its front panel
        assert told(await lab.start_recording(), "rail")["gain"] == 8.0


class FakeManager:
    """One instrument that does not answer, one that fails, one that does; nothing of them passes a wire."""

    state = ManagerState.RUNNING

    def __init__(self) -> None:
        self.read: list[str] = []
        self.parameters = SimpleNamespace(
            snapshot=lambda: [
                ParameterEntry("broken", "set", 1, "", 1, 1, "v2"),
                ParameterEntry("well", "b", 1, "", 1, 1, "v2"),
            ]
        )

    def instruments(self) -> Any:
        return [SimpleNamespace(id=id, state=InstrumentState.READY) for id in ("hung", "broken", "well")]

    def definition(self, instrument: str) -> InstrumentDefinition:
        return InstrumentDefinition(instrument, "v2", "x:X", watched=("a",))

    async def command(self, instrument: str, command: Any, deadline_s: float | None = None) -> Any:
        if instrument == "hung":
            await asyncio.Event().wait()
        if instrument == "broken" and command.name == "a":
            raise ValueError("no")
        self.read.append(f"{instrument}.{command.name}")


async def test_an_instrument_that_does_not_answer_keeps_no_other_waiting_and_is_called_unread() -> None:
    manager = FakeManager()
    unread = await read_settings(manager, 0.01)
    assert sorted(manager.read) == ["broken.set", "well.a", "well.b"]
    assert unread == {("hung", "a"), ("broken", "a")}
    manager.state = ManagerState.STOPPING  # type: ignore[assignment]
    assert await read_settings(manager, 0.01) == frozenset()


async def test_what_was_not_read_is_stale_in_the_recording_and_a_lab_that_ends_meanwhile_begins_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:
        command = lab.manager.command

        async def refused(instrument: str, asked: Any, deadline_s: float | None = None) -> Any:
            if asked == GetParameter("voltage"):
                raise LifecycleError("it is hung")
            return await command(instrument, asked, deadline_s)

        monkeypatch.setattr(lab.manager, "command", refused)
        assert told(await lab.start_recording(tmp_path / "one")) == {"voltage": ("stale", 0.0), "range": 1}
        await lab.stop_recording()

        async def ending(instrument: str, asked: Any, deadline_s: float | None = None) -> Any:
            lab.manager._state = ManagerState.STOPPING

        monkeypatch.setattr(lab.manager, "command", ending)
        with pytest.raises(LifecycleError, match="the lab ends"):
            await lab.start_recording(tmp_path / "two")
        lab.manager._state = ManagerState.RUNNING
        assert not (tmp_path / "two").exists()


async def test_a_log_of_channels_that_there_are_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:
        for wrong, meant in (("suply.*", "supply.*"), ("supply.nois", "supply.noise"), ("noise", "supply.noise")):
            with pytest.raises(ConfigError, match=f"no channel fits {wrong}".replace("*", r"\*")) as caught:
                await lab.log("one", [wrong])
            assert f'Did you mean "{meant}"? There are: supply.noise' in str(caught.value)
        assert lab.logs() == []
        await lab.log("two", ["suply.*", "s?pply.*"])
        await lab.log("frames", "supply.frame")


async def test_an_instrument_that_has_not_started_has_the_channels_of_its_stanza(tmp_path: Path) -> None:
    late = InstrumentDefinition(
        "late", "v2", Supply, polls=(PollDefinition("noise", call="beep", every_s=1.0),), autostart=False
    )
    shy = InstrumentDefinition("shy", "v2", Supply)
    lab = LabDefinition("late", instruments=(late, shy), v2=RuntimeDefinition("v2", "inline"), directory=tmp_path)
    async with duodaq.Lab(lab) as running:
        await running.log("one", ["late.noise"])
        await running.log("two", ["shy.whatever"])
        with pytest.raises(ConfigError, match=r"no channel fits late\.power"):
            await running.log("three", ["late.power"])
