"""Moves whose asker leaves, that are refused, or that meet something else that is done to the same instrument."""

from __future__ import annotations

import asyncio
import itertools
import threading
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from duodaq import clock
from duodaq.app import Lab, LabService
from duodaq.app._control import Client
from duodaq.app._migration_routes import _turn as turn
from duodaq.config import load_lab
from duodaq.errors import ConfigError, CutoverError, LifecycleError, NotInControlError
from duodaq.migration import Budget, ShadowProcess
from duodaq.model import Execute, InstrumentState, Recover
from duodaq.testing._scripted_meter import ScriptedPowerMeter, meter_lab_file


@pytest.fixture
def meter() -> ScriptedPowerMeter:
    return ScriptedPowerMeter()


@pytest.fixture
async def lab(tmp_path: Path, meter: ScriptedPowerMeter) -> AsyncIterator[Lab]:
    made = Lab(load_lab(meter_lab_file(tmp_path)), transports={"meter": meter.line})
    await made.start()
    try:
        yield made
    finally:
        await made.shutdown()


class Held:
    """Holds moves of a lab with the gate closed, until they are let go."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lab, self._let_go = lab, asyncio.Event()
        self._settled = lab.manager._crossing.settled
        monkeypatch.setattr(lab.manager._crossing, "settled", self._wait)

    async def _wait(self, instrument: str, limit_s: float) -> bool:
        await self._let_go.wait()
        return await self._settled(instrument, limit_s)

    async def begun(self) -> None:
        await until(lambda: "meter" in self._lab.manager.gates.closed)

    async def let_go(self) -> None:
        self._let_go.set()
        await until(lambda: not self._lab.migration.on_the_way)
        self._let_go.clear()


@pytest.fixture
async def held(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(lab, monkeypatch)


async def breaks(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


start_process = ShadowProcess.start


async def breaks_late(shadow: ShadowProcess, history: Any) -> None:
    await start_process(shadow, history)
    raise RuntimeError("broken")


async def until(so: Callable[[], Any], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not so():
            await clock.pause(0.005)


def noted(lab: Lab) -> list[dict[str, Any]]:
    return lab.migration.status("meter")[0]["log"]


async def test_a_move_whose_asker_leaves_is_carried_out_and_noted(lab: Lab, held: Held, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    for do, runtime in (("cutover", "v4"), ("rollback", "v2")):
        asked = asyncio.create_task(
            LabService(lab).handle(
                "migrate", {"do": do, "instrument": "meter", "by": "anna", "force": True, "write": True}
            )
        )
        await held.begun()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await held.let_go()
        assert lab.manager.definition("meter").runtime == runtime
        done = [(one["what"], one["to"]) for one in noted(lab)[-2:]]
        assert done == [("moved", runtime), ("lab file written", runtime)]
        assert tomllib.loads(file.read_text())["instruments"]["meter"]["runtime"] == runtime
        assert bool(lab.manager.translations) is bool(lab.migration._watches) is (runtime == "v4")
        await lab.command("meter", Execute("set_wavelength", (700,)))


async def test_the_end_of_a_lab_waits_for_a_move_and_lets_none_begin(
    lab: Lab, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.app._migration.MOVES_END_S", 30.0)
    moving = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await held.begun()
    ending = asyncio.create_task(lab.shutdown(300.0))
    await until(lambda: lab.migration._closed)
    await held.let_go()
    assert (await moving)["owner"] == "v4"
    await ending
    assert noted(lab)[-1]["what"] == "moved"
    with pytest.raises(LifecycleError, match="the lab is ending"):
        await lab.migration.rollback("meter", "anna")


async def test_the_end_of_a_lab_does_not_wait_for_a_move_for_ever(lab: Lab, held: Held, monkeypatch: Any) -> None:
    monkeypatch.setattr("duodaq.app._migration.MOVES_END_S", 0.01)
    moving = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await held.begun()
    await lab.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert (noted(lab)[-1]["what"], lab.manager.definition("meter").runtime) == ("broken off", "v2")


async def test_what_has_moved_can_write_when_it_is_added_again(lab: Lab) -> None:
    await lab.migration.cutover("meter", "anna", force=True)
    definition = lab.manager.definition("meter")
    await lab.manager.remove("meter")
    await lab.manager.add(replace(definition, epoch=0))
    assert lab.manager.definition("meter").epoch == 2
    await lab.manager.command("meter", Execute("set_wavelength_nm", (700,)))


async def test_apply_does_not_move_back_what_has_moved(lab: Lab, tmp_path: Path) -> None:
    await lab.migration.cutover("meter", "anna", force=True)
    file = tmp_path / "lab.toml"
    file.write_text(file.read_text().replace("300 ms", "400 ms"))
    done = await lab.changes.apply()
    assert "runtime" in str(done.plan["refused"])
    assert lab.manager.definition("meter").runtime == "v4"
    await lab.command("meter", Execute("set_wavelength", (700,)))
    await lab.migration.rollback("meter", "anna")
    await lab.command("meter", Execute("set_wavelength", (701,)))


async def test_control_is_asked_of_what_a_command_is_called_now(lab: Lab, meter: ScriptedPowerMeter) -> None:
    await lab.migration.cutover("meter", "anna", force=True)
    lab.control.take("meter", client=Client("bert"))
    with pytest.raises(NotInControlError):
        await lab.command("meter", Execute("set_filter", (1,)))  # V4's actor has nothing of that name
    assert meter.state["F"] == "3"


async def test_a_client_moves_only_what_nobody_else_controls_and_is_noted_by_name(lab: Lab) -> None:
    lab.control.take("meter", client=Client("bert"))
    wish = {"do": "cutover", "instrument": "meter", "force": True, "by": ""}
    carla = LabService(lab).session(Client("carla", "notebook"))
    with pytest.raises(NotInControlError):
        await carla.handle("migrate", wish)
    assert lab.manager.definition("meter").runtime == "v2"
    lab.control.take("meter", client=carla.client, take_over=True)
    await carla.handle("migrate", wish)
    assert noted(lab)[-1]["by"] == "carla (notebook)"


async def test_of_two_that_change_an_instrument_one_does(lab: Lab, held: Held) -> None:
    moving = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await held.begun()
    for other in (
        lambda: lab.changes.apply(),
        lambda: lab.manager.restart_instrument("meter"),
        lambda: lab.manager.remove("meter"),
        lambda: lab.migration.rollback("meter", "bert"),
    ):
        with pytest.raises(LifecycleError, match="on its way"):
            await other()
    await held.let_go()
    assert (await moving)["owner"] == "v4"


async def test_there_is_no_moment_at_which_nobody_has_it(lab: Lab, monkeypatch: Any) -> None:
    begun, let_go, start = asyncio.Event(), asyncio.Event(), lab.manager.guard.start
    calls = itertools.count()

    async def waits(*args: Any, **options: Any) -> None:
        if next(calls):  # the first is made before the old owner is taken down, the second behind it
            begun.set()
            await let_go.wait()
        await start(*args, **options)

    monkeypatch.setattr(lab.manager.guard, "start", waits)
    moving = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await begun.wait()
    await lab.stop("meter")
    assert [one.id for one in lab.manager.instruments()] == ["meter"]
    let_go.set()
    assert (await moving)["owner"] == "v4"


@pytest.mark.parametrize("change", ["remove", "restart"])
async def test_what_is_removed_or_restarted_begins_no_move(lab: Lab, monkeypatch: Any, change: str) -> None:
    side, begun, let_go = lab.manager._sides["v2"], asyncio.Event(), asyncio.Event()
    does = getattr(side, change)

    async def waits(*args: Any) -> Any:
        begun.set()
        await let_go.wait()
        return await does(*args)

    monkeypatch.setattr(side, change, waits)
    of_manager = lab.manager.remove if change == "remove" else lab.manager.restart_instrument
    changing = asyncio.create_task(of_manager("meter"))
    await begun.wait()
    with pytest.raises(LifecycleError, match="being removed or restarted"):
        await lab.migration.cutover("meter", "anna", force=True)
    let_go.set()
    await changing
    assert lab.manager.has("meter") is (change == "restart")


async def test_no_move_begins_while_a_lab_file_is_applied(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(lab.changes), "busy", True)
    with pytest.raises(LifecycleError, match="a lab file is being applied"):
        await lab.migration.cutover("meter", "anna", force=True)


async def test_one_that_is_parked_recovers_stays_if_it_cannot_and_can_be_removed(lab: Lab, monkeypatch: Any) -> None:
    side, sound = lab.manager._sides["v2"], lab.manager.definition("meter")

    async def park(**wrong: Any) -> None:
        await side.take_down("meter", 1.0)
        side.park(replace(sound, **wrong))

    await park(driver="duodaq.cli.demo.power_meter:Nothing")
    for _ in range(2):
        with pytest.raises(Exception, match="Nothing"):
            await lab.manager.restart_instrument("meter")
        assert [(s.id, s.state) for s in lab.manager.instruments()] == [("meter", InstrumentState.ERROR)]
    await park()
    (host,) = side._hosted.values()
    with monkeypatch.context() as patched:
        patched.setattr(host, "add", breaks)
        with pytest.raises(RuntimeError, match="broken"):
            await lab.manager.restart_instrument("meter")
    assert [(s.id, s.state) for s in lab.manager.instruments()] == [("meter", InstrumentState.DISCONNECTED)]
    await lab.manager.command("meter", Recover())
    assert await lab.manager.command("meter", Execute("read_power")) > 0
    await park()
    await lab.manager.remove("meter")
    assert not lab.manager.has("meter")


async def test_a_way_back_that_is_refused_is_tried_again(lab: Lab, meter: ScriptedPowerMeter, monkeypatch: Any) -> None:
    monkeypatch.setattr("duodaq.app._migration._AGAIN_S", 0.01)
    monkeypatch.setattr("duodaq.app._migration._LOOK_S", 0.01)
    lab.migration.budget = Budget(errors=1)
    refusals = iter([CutoverError("refused", owner="v4"), RuntimeError("something else")])
    move, told = lab.manager.move, []

    async def moves_at_last(*args: Any, **options: Any) -> Any:
        if args[0].runtime == "v2" and (refusal := next(refusals, None)) is not None:
            told.append(refusal)
            raise refusal
        return await move(*args, **options)

    monkeypatch.setattr(lab.manager, "move", moves_at_last)
    await lab.migration.cutover("meter", "anna", force=True)
    monkeypatch.setattr("duodaq.migration._budget.Spending.spent", lambda *_: "all of it")
    await until(lambda: lab.manager.definition("meter").runtime == "v2")
    await until(lambda: not lab.migration._watches)
    assert len(told) == 2


async def test_a_rollback_by_hand_that_is_refused_leaves_somebody_watching(lab: Lab, monkeypatch: Any) -> None:
    await lab.migration.cutover("meter", "anna", force=True)

    async def refuses(*_: Any, **__: Any) -> Any:
        raise CutoverError("refused", owner="v4")

    monkeypatch.setattr(lab.manager, "move", refuses)
    with pytest.raises(CutoverError):
        await lab.migration.rollback("meter", "anna")
    assert "meter" in lab.migration._watches


async def test_what_is_known_of_its_ways_follows_what_is_applied(lab: Lab, tmp_path: Path) -> None:
    assert lab.migration.checklist("meter")
    file = tmp_path / "lab.toml"
    file.write_text(file.read_text() + 'passive = ["read_power"]\n')
    await lab.changes.apply()
    route = lab.migration._routes.of("meter")
    assert route.v2 is not None
    assert route.v2.passive == {"read_power"}


async def test_a_loop_does_not_stand_for_a_lab_file_that_nobody_waits_for_any_more(lab: Lab, monkeypatch: Any) -> None:
    begun, let_go, done = threading.Event(), threading.Event(), threading.Event()

    def reads_long(*_: Any) -> None:
        begun.set()
        let_go.wait(10.0)
        done.set()

    monkeypatch.setattr("duodaq.app._migration_routes.Routes._found", reads_long)
    asked = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await until(begun.is_set)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not done.is_set()
    let_go.set()
    await until(lambda: not any(one.name.startswith("lab file") for one in threading.enumerate()))
    assert lab.manager.definition("meter").runtime == "v2"


async def test_the_shadow_of_what_is_changed_ends(lab: Lab, tmp_path: Path) -> None:
    await lab.migration.start_shadow("meter")
    file = tmp_path / "lab.toml"
    file.write_text(file.read_text() + 'passive = ["read_power"]\n')
    await lab.changes.apply()
    assert lab.manager.mirrors == {}
    assert noted(lab)[-1]["what"] == "shadow ended"


async def test_a_worker_that_names_one_it_has_no_more_hides_nobody(lab: Lab, monkeypatch: Any) -> None:
    side = lab.manager._sides["v2"]
    (host,) = side._hosted.values()
    (before,) = host.instruments()
    monkeypatch.setattr(host, "instruments", lambda: (msgspec.structs.replace(before, id="ghost"),))
    assert [(one.id, one.state) for one in side.instruments()] == [("meter", InstrumentState.DISCONNECTED)]
    monkeypatch.setattr(host, "instruments", lambda: (before,))
    await lab.migration.cutover("meter", "anna", force=True)
    assert [(one.id, one.runtime) for one in lab.manager.instruments()] == [("meter", "v4")]


async def test_a_shadow_whose_asker_leaves_before_it_has_begun_leaves_nothing(lab: Lab, monkeypatch: Any) -> None:
    begun, tasks = asyncio.Event(), asyncio.all_tasks()

    async def hangs(shadow: ShadowProcess, history: Any) -> None:
        await start_process(shadow, history)
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ShadowProcess, "start", hangs)
    before = len(lab.manager.v2_data.subscriptions())
    asked = asyncio.create_task(lab.migration.start_shadow("meter"))
    await begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (lab.manager.mirrors, len(lab.manager.v2_data.subscriptions())) == ({}, before)
    assert asyncio.all_tasks() <= tasks


@pytest.mark.parametrize("ends", ["cutover", "shutdown"])
async def test_a_shadow_that_is_ended_before_it_has_begun_leaves_nothing(lab: Lab, monkeypatch: Any, ends: str) -> None:
    begun = asyncio.Event()

    async def hangs(shadow: ShadowProcess, history: Any) -> None:
        await start_process(shadow, history)
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ShadowProcess, "start", hangs)
    asked = asyncio.create_task(lab.migration.start_shadow("meter"))
    await begun.wait()
    monkeypatch.undo()
    await (lab.migration.cutover("meter", "anna", force=True) if ends == "cutover" else lab.shutdown())
    with pytest.raises(LifecycleError, match="before it had begun"):
        await asyncio.wait_for(asked, 10.0)
    assert lab.manager.mirrors == lab.migration._shadows == {}
    with pytest.raises(LifecycleError):
        await lab.migration.start_shadow("meter")


async def test_no_shadow_begins_beside_what_is_on_its_way(lab: Lab, held: Held) -> None:
    moving = asyncio.create_task(lab.migration.cutover("meter", "anna", force=True))
    await held.begun()
    with pytest.raises(LifecycleError, match="on its way"):
        await lab.migration.start_shadow("meter")
    await held.let_go()
    await moving


@pytest.mark.parametrize("fails", ["log", "process"])
async def test_a_shadow_that_does_not_begin_leaves_nothing(lab: Lab, monkeypatch: Any, fails: str) -> None:
    def refuses(*_: Any) -> None:
        raise RuntimeError("broken")

    if fails == "log":
        monkeypatch.setattr(lab.manager.broker, "subscribe_log", refuses)
    else:
        monkeypatch.setattr(ShadowProcess, "start", breaks_late)
    before = len(lab.manager.v2_data.subscriptions())
    with pytest.raises(RuntimeError, match="broken"):
        await lab.migration.start_shadow("meter")
    assert (lab.manager.mirrors, len(lab.manager.v2_data.subscriptions())) == ({}, before)
    monkeypatch.undo()
    await lab.migration.start_shadow("meter")
    assert (await lab.migration.end_shadow("meter"))["within"]


async def test_notes_that_cannot_be_read_are_set_aside(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "migration.json").write_text('{"meter": {"log": [')
    lab.migration.tick("meter", "docs", "anna")
    await lab.migration._notes.flush()
    assert (tmp_path / "migration.json.damaged").read_text() == '{"meter": {"log": ['
    assert '"anna"' in (tmp_path / "migration.json").read_text()


async def test_a_lab_file_that_is_not_written_does_not_hide_the_move(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    assert lab.migration.checklist("meter")
    file.write_text(file.read_text() + "oops\n")
    wish = {"instrument": "meter", "force": True, "write": True}
    done = await LabService(lab).handle("migrate", {"do": "cutover", **wish})
    assert (done["owner"], done["diff"]) == ("v4", "")
    assert "lab.toml" in done["not_written"]


async def test_of_two_that_write_the_lab_file_each_finds_what_the_other_wrote(lab: Lab, monkeypatch: Any) -> None:
    busy: list[int] = []

    def turns(*args: Any) -> Any:
        busy.append(len(busy))
        clock.block(0.02)
        assert busy.pop() == 0, "somebody else was at it"
        return turn(*args)

    monkeypatch.setattr("duodaq.app._migration_routes._turn", turns)
    await lab.migration.cutover("meter", "anna", force=True)
    await asyncio.gather(*(lab.migration.write_config("meter") for _ in range(3)))


async def test_a_lab_file_that_cannot_be_read_moves_nothing_and_is_named(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text("oops\n")
    with pytest.raises(ConfigError, match=r"lab\.toml"):
        await lab.migration.cutover("meter", "anna", force=True)
    assert lab.manager.definition("meter").runtime == "v2"
