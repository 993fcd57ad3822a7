"""Control of an instrument: one client holds it, others read and stop, and nobody needs it who works alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq.app import Client, Lab, LabHost, acting
from duodaq.app._control import only_reads
from duodaq.app._flights import Flights
from duodaq.errors import NotInControlError, UnsafeStateError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    SetParameter,
    SnapFrame,
    StopAcquisition,
)
from duodaq.storage.journal import JournalReader
from duodaq.testing import RailActor, logged, rail_lab

ANNA, BOB = Client("anna", "notebook", "process 1"), Client("bob", "script", "process 2")


@contextlib.asynccontextmanager
async def hosted(folder: Path) -> AsyncIterator[Lab]:
    """A lab with its control socket, in this loop."""
    lab, ready = Lab(rail_lab(folder)), asyncio.Event()

    async def serves() -> None:
        ready.set()

    host = LabHost(lab)
    running = asyncio.create_task(host.run(serves))
    try:
        await asyncio.wait([running, waiting := asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
        waiting.cancel()
        assert ready.is_set(), "the host ended before it was ready"
        yield lab
    finally:
        host.ask_to_end()
        await running


async def test_what_nobody_holds_is_free_for_all(tmp_path: Path) -> None:
    async with Lab(rail_lab(tmp_path)) as lab:
        for client in (ANNA, BOB):
            with acting(client):
                await lab.command("rail", Execute("move", ("x", 1.0)))
        assert lab.control.holders() == {}


async def test_others_may_read_and_stop_what_somebody_holds_and_nothing_else(tmp_path: Path) -> None:
    async with Lab(rail_lab(tmp_path)) as lab:
        with acting(ANNA):
            lab.control.take("rail", "Anna")
            await lab.command("rail", Execute("move", ("x", 1.0)))
        with acting(BOB):
            refused = (
                Execute("move", ("x", 2.0)),
                SetParameter("gain", 3),
                StopAcquisition(),
                SnapFrame({"exposure_s": 1}),
            )
            for command in refused:
                with pytest.raises(
                    NotInControlError, match=r"Anna \(notebook, process 1\) holds control since"
                ) as caught:
                    await lab.command("rail", command)
                assert "lab.rail.control(take_over=True)" in str(caught.value)
                assert isinstance(caught.value, PermissionError)
            assert await lab.command("rail", GetParameter("gain")) == 1
            assert await lab.command("rail", Execute("read_position", ("x",))) == 1.0
            assert (await lab.read("rail", "x.position")).value == 1.0
            await lab.stop("rail")
            await lab.command("other", SetParameter("gain", 5))
        with pytest.raises(NotInControlError):
            await lab.command("rail", SetParameter("gain", 3))
        assert RailActor.all["rail"].has["x"] == 1.0


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("*IDN?", True),
        ("VOLT?;CURR?", True),
        ('CALC:PAR:CAT? "a;b"', True),
        ("OUTP ON;OUTP?", False),
        ("VOLT 7;:VOLT?", False),
        ("VOLT?\nOUTP ON", False),
        ("VOLT?\rOUTP ON", False),
        ("VOLT? 'a;OUTP ON", False),
        ("VOLT? #0;OUTP ON", False),
        ("SYST:ERR?", False),
        ("*TST?", False),
        ("OUTP ON", False),
        ("", False),
    ],
)
def test_a_query_reads_if_all_of_it_asks(text: str, reads: bool) -> None:
    supply = InstrumentDefinition("supply", "v4", "duodaq:ScpiActor")
    for name, more in (("query", ()), ("query_with_timeout", (2.0,)), ("query_block", ())):
        assert only_reads(supply, Execute(name, (text, *more))) is reads


class Level:
    """A driver of somebody's own, whose method reads, or sets what it is given."""

    def __init__(self) -> None:
        self.now = 0.0

    def level(self, new: float | None = None) -> float:
        self.now = self.now if new is None else new
        return self.now


async def test_a_polled_call_with_arguments_of_another_kind_is_no_reading(tmp_path: Path) -> None:
    lab = rail_lab(tmp_path)
    source = InstrumentDefinition("source", "v2", Level, polls=(PollDefinition("level", 60.0, call="level"),))
    setting = (Execute("level", (42.0,)), Execute("level", (), {"new": 42.0}))
    async with Lab(replace(lab, instruments=(*lab.instruments, source))) as lab:
        lab.control.take("source", client=ANNA)
        with acting(BOB):
            for command in setting:
                with pytest.raises(NotInControlError, match="anna"):
                    await lab.command("source", command)
            assert await lab.command("source", Execute("level")) == 0.0
        await lab.stop_all()
        for command in setting:
            with acting(ANNA), pytest.raises(UnsafeStateError):
                await lab.command("source", command)
        assert await lab.command("source", Execute("level")) == 0.0
        lab.reset_stop("a test")


async def test_control_is_taken_over_by_word_alone_and_that_is_logged(tmp_path: Path) -> None:
    async with Lab(rail_lab(tmp_path)) as lab:
        run = await lab.start_recording()
        with logged() as lines:
            lab.control.take("rail", "anna", client=ANNA)
            with pytest.raises(NotInControlError):
                lab.control.take("rail", client=BOB)
            with pytest.raises(NotInControlError):
                lab.control.release("rail", BOB)
            lab.control.take("rail", client=BOB, take_over=True)
            with acting(ANNA), pytest.raises(NotInControlError, match="bob"):
                await lab.command("rail", SetParameter("gain", 3))
            assert lab.control.release("rail", BOB)
            assert not lab.control.release("rail", BOB)
        await lab.stop_recording()
    (over,) = [line for line in lines if line["event"] == "control was taken over"]
    assert (over["instrument"], over["who"], over["before"]) == (
        "rail",
        "bob (script, process 2)",
        "anna (notebook, process 1)",
    )
    kept = [event.doc["what"] for event in JournalReader(run).events if event.name == "control"]
    assert kept == ["taken", "taken over", "released"]


async def test_what_is_lent_goes_back_to_whoever_had_it(tmp_path: Path) -> None:
    scan = Client("scan 1", "scan")
    async with Lab(rail_lab(tmp_path)) as lab:
        table = lab.control
        table.take("rail", client=ANNA)
        table.lend("rail", scan, "scan 1", client=ANNA)
        table.check("rail", "move", scan)
        with pytest.raises(NotInControlError, match="scan 1 of anna"):
            table.check("rail", "move", ANNA)
        table.give_back("scan 1")
        table.check("rail", "move", ANNA)
        table.lend("rail", scan, "scan 1", client=ANNA)
        table.leave(ANNA, "it died")
        assert str(table.holder("rail")) == "scan 1 of anna (notebook, process 1)", "the scan goes on"
        table.give_back("scan 1")
        assert table.holders() == {}
        table.lend("rail", scan, "scan 1", client=ANNA)
        table.take("rail", client=BOB, take_over=True)
        with pytest.raises(NotInControlError, match="bob"):
            table.check("rail", "move", scan)


async def test_attached_clients_hold_control_until_they_release_it_or_die(tmp_path: Path) -> None:
    async with hosted(tmp_path) as lab:
        await asyncio.to_thread(use, lab.definition.name)
        deadline = duodaq.clock.Deadline(10)
        while lab.control.holders() and not deadline.passed:
            await duodaq.clock.pause(0.01)
        assert lab.control.holders() == {}, "its connection has ended"


def use(name: str) -> None:
    anna, bob = duodaq.connect(name), duodaq.connect(name)
    with anna, bob:
        with anna.rail.control("anna") as control:
            assert control.holder.name == "anna"
            anna.rail.x.move(3.0)
            with pytest.raises(NotInControlError, match="anna"):
                bob.rail.x.move(4.0)
            with pytest.raises(NotInControlError, match="anna"):
                bob.rail.restart()
            assert bob.rail.x.read_position().value == 3.0
            bob.rail.x.stop()
            holder = bob.rail.holder()
            assert holder is not None
            assert holder.client.startswith("anna (")
            assert bob.status()["control"]["rail"]["name"] == "anna"
        bob.rail.x.move(4.0)
        bob.rail.control("bob")
        anna.rail.control("anna", take_over=True)
        assert anna.holders()["rail"].name == "anna"
        with pytest.raises(NotInControlError, match="anna"):
            bob.rail.x.move(5.0)
        assert not bob.other.release()


async def test_by_http_control_goes_with_a_key_and_lapses(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    visitors = pytest.importorskip("duodaq.web._visitors")
    monkeypatch.setattr(visitors, "_LOOK_S", 0.01)
    async with serve_rails() as (client, lab):
        taken = (await client.post("/api/instruments/rail/control", json={"who": "anna"})).json()
        key = {"X-Duodaq-Key": taken["key"]}
        assert taken["holder"]["client"] == "anna (page, 127.0.0.1)"
        move = {"kind": "execute", "name": "move", "args": ["x", 2.0]}
        refused = await client.post("/api/instruments/rail/command", json=move)
        assert (refused.status_code, refused.json()["error"]) == (409, "NotInControlError")
        assert refused.json()["holder"] == "anna (page, 127.0.0.1)"
        assert (await client.post("/api/instruments/rail/command", json=move, headers=key)).status_code == 200
        assert (await client.post("/api/instruments/rail/stop")).status_code == 200
        assert (await client.post("/api/instruments/rail/restart")).status_code == 409
        assert (await client.post("/api/instruments/rail/control", json={})).status_code == 409
        assert (await client.post("/api/instruments/rail/release")).status_code == 409
        assert (await client.get("/api/control")).json()["rail"]["name"] == "anna"
        assert (await client.post("/api/instruments/rail/release", headers=key)).json() == {"released": True}
        assert (await client.get("/api/control")).json() == {}

        await client.post("/api/instruments/rail/control", json={"who": "anna"})
        monkeypatch.setattr(visitors, "LAPSE_S", 0.0)
        await gone(lambda: not lab.control.holders())


async def test_a_page_holds_control_until_it_is_closed(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        async with page_of(client) as anna, page_of(client) as bob:
            assert (await asked(anna, "control", "rail", {"who": "anna"}))["ok"]
            move = {"kind": "execute", "name": "move", "args": ["x", 2.0]}
            told = await asked(bob, "command", "rail", move)
            assert (told["ok"], told["status"], told["error"]) == (False, 409, "NotInControlError")
            assert (await asked(bob, "stop", "rail", {}))["ok"]
            assert (await asked(anna, "command", "rail", move))["ok"]
            shown = await heard(bob, lambda said: said["type"] == "now" and said["now"]["control"])
            assert shown["now"]["control"]["rail"]["client"] == "anna (page, 127.0.0.1)"
            assert (await asked(bob, "control", "rail", {"who": "bob", "take_over": True}))["ok"]
            assert (await asked(bob, "release", "rail", {}))["ok"]
            assert (await asked(anna, "control", "rail", {}))["ok"]
        await gone(lambda: not lab.control.holders())


def page_of(client: Any) -> Any:
    """An open page of the lab that this client asks."""
    place = str(client.base_url).replace("http", "ws", 1) + "api/live"
    websockets: Any = pytest.importorskip("websockets.asyncio.client")
    return websockets.connect(place, compression=None, max_size=None, proxy=None)


async def asked(live: Any, name: str, target: str, body: Any) -> dict[str, Any]:
    await live.send(json.dumps({"type": "do", "id": name, "name": name, "target": target, "body": body}))
    return await heard(live, lambda said: said["type"] == "done" and said["id"] == name)


async def heard(live: Any, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            message = await live.recv()
            if isinstance(message, str) and wanted(said := json.loads(message)):
                return said


async def gone(condition: Callable[[], bool]) -> None:
    deadline = duodaq.clock.Deadline(10)
    while not condition():
        assert not deadline.passed, "it did not come to that"
        await duodaq.clock.pause(0.01)


async def test_the_program_that_has_the_lab_is_one_client_also_when_it_scans(tmp_path: Path) -> None:
    async with Lab(rail_lab(tmp_path)) as lab:
        lab.control.take("rail")
        scan = lab.scans.begin(["rail.x"], [], 2)
        assert (scan.who, scan.state) == ("the program that has the lab", "running")
        await lab.stop("rail")
        assert lab.scans.point(scan.number, 1) == {"holds": [], "abort": None}, "its own stop says nothing new"
        await lab.command("rail", Execute("move", ("x", 1.0)))
        lab.scans.end(scan.number, 2, complete=True)
        await lab.command("rail", SetParameter("gain", 2))
        with acting(BOB), pytest.raises(NotInControlError, match="the program that has the lab holds control"):
            await lab.command("rail", SetParameter("gain", 3))


async def test_a_flight_that_is_refused_ends_no_acquisition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    async with Lab(rail_lab(tmp_path)) as lab:
        command = lab.manager.command

        async def heard(instrument: str, asked: Any, *rest: Any, **facts: Any) -> Any:
            sent.append(asked)
            return await command(instrument, asked, *rest, **facts)

        monkeypatch.setattr(lab.manager, "command", heard)
        channel = next(one for one in lab.manager.channels() if one.instrument == "rail").channel
        with acting(ANNA):
            lab.control.take("rail", "anna")
        with acting(BOB), pytest.raises(NotInControlError):
            await Flights(lab).fly("one", "rail", channel, {})
    assert [one for one in sent if isinstance(one, StopAcquisition)] == []
