"""Cutovers and rollbacks on a running lab: what the device itself noted, what the streams bore, what the wire saw."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.integration.moving_meters import V2, V4, Load, come_to, lost_with_workers, move, running, well

from duodaq import clock
from duodaq.cli.demo.power_meter import PowerMeter
from duodaq.dual import DualRuntimeManager
from duodaq.errors import CutoverError, DeliveryError, DuodaqError
from duodaq.migration import Limits, violations
from duodaq.model import (
    Execute,
    InstrumentState,
    ReadChannel,
    SetParameter,
    StopAcquisition,
)
from duodaq.schema import scalars_of
from duodaq.testing._scripted_meter import ScriptedPowerMeter
from duodaq.v4.instruments import InstrumentActor, Parameter
from duodaq.workers import ProcessGroup


async def sequences(subscription: Any, read: Callable[[Any], list[Any]], more_than: int) -> list[int]:
    """The numbers of all that has come, as soon as so many have."""
    found: list[int] = []
    deadline = clock.Deadline(20)
    while True:
        try:
            found += [one.sequence for one in read(subscription.get_nowait())]
        except BlockingIOError:
            if len(found) > more_than:
                return found
            assert not deadline.passed, f"{len(found)} have come"
            await clock.pause(0.005)


@pytest.mark.parametrize(
    ("v2", "v4", "pairs"),
    [
        pytest.param("inline", "inline", 5, id="inline"),
        pytest.param("process", "inline", 5, id="process"),
        pytest.param("process", "process", 100, id="soak", marks=pytest.mark.soak),
    ],
)
async def test_under_load_nothing_is_lost_or_done_twice_and_the_streams_go_on(v2: str, v4: str, pairs: int) -> None:
    meter = ScriptedPowerMeter()
    async with running(v2, v4, meter) as manager:
        of_v2 = manager.v2_data.subscribe("reader of v2", capacity=100_000)
        of_v4 = manager.v4_data.subscribe("reader of v4", capacity=100_000)
        load = Load(manager, 4)
        for target in [V4, V2] * pairs:
            passage = await move(manager, target)
            assert passage.owner == target.runtime
            await clock.pause(0.03)
        await come_to(lambda: load.reads > 20, "hardly a reading was answered")
        await load.end()
        assert set(load.fates.values()) == {"done"}
        assert meter.wavelengths() == dict.fromkeys(load.fates, 1)
        assert violations(manager.broker.log("meter")) == []
        offered = of_v4.offered
        await come_to(lambda: of_v4.offered > offered, "the stream stood still")
        for found in (await sequences(of_v2, lambda one: [one], 20), await sequences(of_v4, scalars_of, 20)):
            assert found == list(range(found[0], found[0] + len(found)))


async def test_owners_killed_at_any_moment_leave_one_owner_and_no_command_done_twice() -> None:
    meter, chance = ScriptedPowerMeter(), random.Random(7)
    async with running("process", "process", meter, ends_clean=False) as manager:
        load = Load(manager, 3)
        for _ in range(4):
            target = V4 if manager.definition("meter").runtime == "v2" else V2
            pids = {w.runtime: w.pid for w in manager.health().workers}
            moving = asyncio.create_task(move(manager, target))
            await clock.pause(chance.uniform(0.0, 0.02))
            if (pid := pids[chance.choice(("v2", "v4"))]) is not None:
                os.kill(pid, signal.SIGKILL)
            try:
                owner = (await moving).owner
            except CutoverError as error:
                owner = error.owner
            holders = [i.runtime for i in manager.instruments() if i.id == "meter"]
            assert holders == [owner]
            await well(manager)
            if manager.definition("meter").runtime == "v2":
                manager.translations.pop("meter", None)
        await load.end()
        counted = meter.wavelengths()
        for wanted, fate in load.fates.items():
            allowed = {"done": {1}, "not done": {0}}.get(fate, {0, 1})
            assert counted[wanted] in allowed, (wanted, fate, counted[wanted])
        assert violations(manager.broker.log("meter")) == []


def _pid_of_v4(manager: DualRuntimeManager) -> int | None:
    return next(w.pid for w in manager.health().workers if w.runtime == "v4")


async def test_what_came_before_a_move_is_not_lost_with_the_new_owner() -> None:
    meter = ScriptedPowerMeter()
    async with running("process", "process", meter, ends_clean=False) as manager:
        await come_to(lambda: meter.readings > 25, "hardly a reading was made")
        await move(manager, V4)
        await manager.command("meter", StopAcquisition(), 5.0)
        assert await manager.flush(5.0)
        dead = _pid_of_v4(manager)
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        await come_to(lambda: _pid_of_v4(manager) not in (dead, None), "it was not replaced")
        assert lost_with_workers(manager) == 0


class Tuned(PowerMeter):
    """One whose wavelength is an attribute."""

    wavelength = property(lambda self: self._told, lambda self, nm: self._tell(nm))
    _told = 633

    def _tell(self, nm: int) -> None:
        self.set_wavelength(nm)
        self._told = nm


async def _read_wavelength(actor: Any) -> int:
    return int(await actor.port.exchange(b"W?\n", holder=actor.context.holder))


async def _write_wavelength(actor: Any, nm: int) -> int:
    await actor.port.exchange(b"W%04d\n" % nm, holder=actor.context.holder)
    return nm


class Tuned4(InstrumentActor):
    """The same in V4, under the same name."""

    parameters: ClassVar = {"wavelength": Parameter(_read_wavelength, _write_wavelength, "nm")}


@pytest.mark.parametrize("watched", [("wavelength",), ()], ids=["watched", "unwatched"])
@pytest.mark.parametrize("built_in", [False, True], ids=["own", "built in"])
@pytest.mark.parametrize("v4", ["inline", "process"])
async def test_the_parameter_table_goes_with_an_instrument_there_and_back(
    v4: str, built_in: bool, watched: tuple[str, ...]
) -> None:
    meter = ScriptedPowerMeter()
    name = "wavelength_nm" if built_in else "wavelength"
    first = replace(V2, driver=Tuned, watched=watched)
    second = V4 if built_in else replace(V4, driver=Tuned4, args={}, watched=watched)
    async with running("process", v4, meter, first) as manager:

        async def set_to(name: str, nm: int, owner: str) -> None:
            await manager.command("meter", SetParameter(name, nm), 5.0)
            known: Any = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    while (known := manager.parameters.get("meter", name)) is None or known.value != nm:
                        await clock.pause(0.005)
            assert known is not None, f"{name} is not in the table"
            assert (known.value, known.owner, known.stale) == (nm, owner, False)
            assert int(meter.state["W"]) == nm

        await set_to("wavelength", 700, "v2")
        for nm in (800, 810):
            await manager.move(second)
            await set_to(name, nm, "v4")
            await manager.move(first)
            await set_to("wavelength", nm - 300, "v2")


async def _v4_numbers(manager: DualRuntimeManager, stream: Any, more: int) -> list[int]:
    """The numbers of all that has come to a reader in V4, once so many more have."""
    offered = stream.offered
    await come_to(lambda: stream.offered >= offered + more, "the stream stood still")
    return await sequences(stream, scalars_of, 0)


DYING = Path(__file__).with_name("dying_meters.py")


async def test_what_dies_with_the_old_owner_is_a_number_that_nobody_gets_and_is_not_waited_for() -> None:
    meter = ScriptedPowerMeter()
    dying = replace(V4, driver=f"{DYING}:DiesAtItsEnd", options={"acquire": True})
    async with running("process", "process", meter, dying, ends_clean=False) as manager:
        stream = manager.v4_data.subscribe("reader", capacity=100_000)
        await come_to(lambda: stream.offered > 5, "hardly a reading was made")
        passage = await move(manager, V2, limits=Limits(drain_s=20.0))
        assert (passage.owner, passage.old_ended) == ("v2", "forced")
        assert passage.gap_s < 5, "what its process had in hand cannot come any more"
        numbers = await _v4_numbers(manager, stream, 5)
        assert numbers == sorted(set(numbers)), "a number comes once, and none before another"
        assert numbers[-1] - numbers[0] + 1 - len(numbers) == lost_with_workers(manager) >= 1


OWN_V4, OWN_V2 = replace(V4, worker="own"), replace(V2, worker="own")
LATE_S = 0.5
LATE = f"""
from duodaq.clock import block
from duodaq.cli.demo.power_meter import PowerMeter

block({LATE_S})
"""


@pytest.mark.parametrize("around", ["process", "inline"])
async def test_a_process_of_its_own_is_there_before_anything_waits(
    around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = ProcessGroup._make

    async def late(group: ProcessGroup, *facts: Any) -> Any:
        await clock.pause(LATE_S)
        return await make(group, *facts)

    meter = ScriptedPowerMeter()
    async with running(around, "inline", meter) as manager:
        monkeypatch.setattr(ProcessGroup, "_make", late)
        passage = await move(manager, OWN_V4)
        held_s = dict(passage.steps)["held"]
        assert held_s > LATE_S
        assert passage.took_s - held_s < LATE_S


async def test_the_modules_of_a_driver_are_loaded_before_anything_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_meter.py").write_text(LATE)
    monkeypatch.syspath_prepend(tmp_path)
    meter = ScriptedPowerMeter()
    for target in (V2, OWN_V2):
        async with running("process", "inline", meter, replace(V4, options={"acquire": True})) as manager:
            passage = await move(manager, replace(target, driver="late_meter:PowerMeter"))
            assert passage.took_s - dict(passage.steps)["held"] < LATE_S


@pytest.mark.parametrize(
    ("v4", "failing", "lost"),
    [("process", "DiesAtItsStart", 1), ("process", "FailsAtItsStart", 0), ("inline", "FailsAtItsStart", 0)],
)
async def test_the_numbers_of_a_new_owner_that_fails_in_its_start_are_not_given_again(
    v4: str, failing: str, lost: int
) -> None:
    meter = ScriptedPowerMeter()
    async with running("process", v4, meter, ends_clean=False) as manager:
        stream = manager.v4_data.subscribe("reader", capacity=100_000)
        await come_to(lambda: stream.offered > 5, "hardly a reading was made")
        with pytest.raises(CutoverError, match="undone") as failed:
            await move(manager, replace(V4, driver=f"{DYING}:{failing}"))
        assert (failed.value.owner, failed.value.step) == ("v2", "start")
        numbers = await _v4_numbers(manager, stream, 5)
        assert numbers == sorted(set(numbers)), "a number comes once, and none before another"
        assert numbers[-1] - numbers[0] + 1 - len(numbers) == lost_with_workers(manager) == lost


async def test_a_new_owner_that_does_not_start_gives_it_back_and_everything_goes_on() -> None:
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter) as manager:
        with pytest.raises(CutoverError, match="undone") as failed:
            await manager.move(replace(V4, args={"rate_hz": 100, "dbm_code": "none"}))
        assert failed.value.owner == "v2"
        assert (await manager.command("meter", Execute("read_power"))) > 0
        with pytest.raises(CutoverError, match="undone"):
            await manager.move(replace(V4, settings={"range": 99}))
        await manager.command("meter", Execute("read_power"))
        assert manager.definition("meter").epoch == 4
        assert violations(manager.broker.log("meter")) == []
        assert (await move(manager, V4)).owner == "v4"


class SlowMeter:
    """A driver with a call that takes its time, as a search for home does."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def home(self) -> str:
        clock.block(0.3)
        self.serial.write(b"W0999\n")
        return "found"

    def read_power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())


async def test_a_long_command_in_hand_ends_first_and_is_done_once() -> None:
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter, replace(V2, driver=SlowMeter)) as manager:
        homing = asyncio.create_task(manager.command("meter", Execute("home"), 5.0))
        await clock.pause(0.05)
        moving = asyncio.create_task(move(manager, V4))
        await clock.pause(0.05)
        waiting = asyncio.create_task(manager.command("meter", ReadChannel("power"), 5.0))
        assert (await moving).owner == "v4"
        assert homing.done()
        assert await homing == "found"
        assert (await waiting).origin == "v4"
        assert meter.wavelengths()[999] == 1
        assert violations(manager.broker.log("meter")) == []


class HungMeter:
    """A driver that stays in a call for as long as the test wants."""

    let_go: Any = None

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def hang(self) -> None:
        clock.block(5.0, HungMeter.let_go)

    def read_power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())


async def test_a_hung_old_owner_is_fenced_off_and_what_it_does_later_does_not_reach_the_wire() -> None:
    HungMeter.let_go = threading.Event()
    meter = ScriptedPowerMeter()
    hung = replace(V2, driver=HungMeter, polls=(), kill_after_s=0.1, deadline_s=0.05)
    async with running("inline", "inline", meter, hung, ends_clean=False) as manager:
        with pytest.raises(DuodaqError):
            await manager.command("meter", Execute("hang"))
        async with asyncio.timeout(5):
            while manager.instruments()[0].state is not InstrumentState.HUNG:
                await clock.pause(0.01)
        passage = await move(manager, V4, limits=Limits(close_s=0.3))
        assert (passage.owner, passage.old_ended) == ("v4", "leaked")
        HungMeter.let_go.set()
        await clock.pause(0.05)
        assert (await manager.command("meter", Execute("read_power"))) > 0
        assert violations(manager.broker.log("meter")) == []


async def test_a_process_that_was_made_for_a_move_is_ended_when_that_is_refused_or_undone() -> None:
    HungMeter.let_go = threading.Event()
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter, replace(V2, driver=HungMeter)) as manager:
        in_hand = asyncio.create_task(manager.command("meter", Execute("hang"), 20.0))
        await clock.pause(0)
        with pytest.raises(CutoverError, match="settle"):
            await move(manager, OWN_V4, limits=Limits(settle_s=0.0))
        assert [w.name for w in manager.health().workers] == ["v2-inline", "v4-inline"]
        HungMeter.let_go.set()
        await in_hand
        with pytest.raises(CutoverError, match="undone"):
            await move(manager, replace(OWN_V4, settings={"range": 99}))
        assert [w.name for w in manager.health().workers] == ["v2-inline", "v4-inline"]
        assert (await move(manager, OWN_V4)).owner == "v4"


async def test_a_cutover_while_the_port_is_being_resynchronised_waits_for_that() -> None:
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter, replace(V2, polls=())) as manager:
        meter.silent = True
        with pytest.raises(DuodaqError):
            await manager.command("meter", Execute("read_power"), 0.1)
        moving = asyncio.create_task(move(manager, V4))
        await clock.pause(0.02)
        meter.silent = False
        assert (await moving).owner == "v4"
        assert [i.runtime for i in manager.instruments()] == ["v4"]
        assert (await manager.command("meter", Execute("read_power"))) > 0
        assert violations(manager.broker.log("meter")) == []


async def test_a_stop_meanwhile_ends_what_moves_and_waits_at_the_gate() -> None:
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter) as manager:
        manager.gates.close("meter")
        waiting = asyncio.create_task(manager.command("meter", Execute("set_wavelength", (700,)), 5.0))
        reading = asyncio.create_task(manager.command("meter", ReadChannel("power"), 5.0))
        await clock.pause(0.01)
        await manager.stop_all()
        manager.reset_stop("the test")
        manager.gates.open("meter")
        with pytest.raises(DeliveryError) as stopped:
            await waiting
        assert stopped.value.fate == "not done"
        assert (await reading).value > 0
        assert meter.wavelengths()[700] == 0


async def test_who_waits_longer_than_its_deadline_is_told_that_nothing_was_done() -> None:
    meter = ScriptedPowerMeter()
    async with running("inline", "inline", meter) as manager:
        manager.gates.close("meter")
        with pytest.raises(DeliveryError, match="on its way") as late:
            await manager.command("meter", Execute("set_wavelength", (700,)), 0.02)
        manager.gates.open("meter")
        assert late.value.fate == "not done"
        assert meter.wavelengths()[700] == 0
