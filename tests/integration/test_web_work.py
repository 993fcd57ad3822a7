"""Scans, presets, logs, exports and the data of runs by HTTP, as the page and the command line have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from duodaq import clock
from duodaq.model import SetParameter
from duodaq.testing import RailActor


async def until(client: Any, path: str, *states: str) -> dict[str, Any]:
    deadline = clock.Deadline(60)
    while True:
        found: dict[str, Any] = (await client.get(path)).json()
        if found["state"] in states:
            return found
        assert not deadline.passed, found
        await clock.pause(0.02)


async def come_to(condition: Callable[[], object]) -> None:
    deadline = clock.Deadline(20)
    while not condition():
        assert not deadline.passed, "it did not come to that"
        await clock.pause(0.005)


async def test_presets_are_saved_compared_loaded_and_removed(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        saved = await client.post("/api/presets", json={"name": "one", "instruments": ["rail"], "note": "in"})
        assert saved.json()["settings"]["rail"]["gain"] == 1.0
        assert (await client.post("/api/presets", json={"name": "one"})).status_code == 409
        assert (await client.post("/api/presets", json={"name": "../x"})).status_code == 422
        await lab.command("rail", SetParameter("gain", 4))
        rows = (await client.get("/api/presets/one/diff")).json()
        assert [(r["name"], r["now"], r["then"]) for r in rows if r["what"] == "set"] == [("gain", 4, 1.0)]
        assert (await client.post("/api/presets/one/load")).status_code == 200
        assert RailActor.all["rail"].has["gain"] == 1.0
        RailActor.broken["gain"] = "jammed"
        await client.post("/api/presets", json={"name": "two"})
        assert (await client.get("/api/presets/one/diff?other=two")).status_code == 200
        assert [one["name"] for one in (await client.get("/api/presets")).json()] == ["one", "two"]
        RailActor.broken.clear()
        await lab.command("rail", SetParameter("gain", 4))
        RailActor.broken["gain"] = "jammed"
        partly = await client.post("/api/presets/one/load", json={"instruments": ["rail"]})
        assert (partly.status_code, partly.json()["error"]) == (424, "PartlySetError")
        assert partly.json()["failed"] == "rail.gain"
        assert (await client.get("/api/presets/one")).json()["facts"]["note"] == "in"
        assert (await client.post("/api/presets/one/remove")).json() == {}
        for path in ("/api/presets/one", "/api/presets/one/diff"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/api/presets/one/load")).status_code == 404


async def test_a_scan_is_begun_watched_paused_and_aborted(serve_rails: Any) -> None:
    async with serve_rails() as (client, _):
        wish: dict[str, Any] = {"axes": [{"axis": "rail.x", "positions": [1, 30]}], "read": ["other"]}
        beyond = await client.post("/api/scans", json=wish)
        assert (beyond.status_code, beyond.json()["error"]) == (422, "OutOfRangeError")
        for axis in ({"axis": "rail.x"}, {"axis": "rail.x", "positions": [1], "points": 3}):
            assert (await client.post("/api/scans", json={**wish, "axes": [axis]})).status_code == 422
        assert (
            (await client.post("/api/scans", json={**wish, "axes": [{"axis": "rail.q", "positions": [1]}]}))
            .json()["detail"]
            .startswith("'rail.q' is no axis; those of rail are: rail.x")
        )
        RailActor.step_s = 1.0
        wish["axes"] = [{"axis": "rail.x", "start": 20, "stop": 2, "points": 3}]
        scan = (await client.post("/api/scans", json={**wish, "sample": "knife 8"})).json()
        assert (scan["number"], scan["planned"], scan["detached"]) == (1, 3, True)
        assert scan["who"] == "page (127.0.0.1)"
        held = await client.post("/api/instruments/rail/command", json={"kind": "set", "name": "gain", "value": 2})
        assert held.json()["holder"] == "scan 1 of page (127.0.0.1)"
        await come_to(lambda: RailActor.all["rail"].has["x"])
        assert (await client.post("/api/scans/1/pause")).status_code == 200
        RailActor.step_s = 0.0
        paused = await until(client, "/api/scans/1", "paused")
        assert paused["holds"] == ["paused by page (127.0.0.1)"]
        assert (await client.get("/api/status")).json()["scans"][0]["state"] == "paused"
        RailActor.step_s = 1.0
        assert (await client.post("/api/scans/1/resume")).status_code == 200
        await come_to(lambda: RailActor.all["rail"].has["x"] != 20.0)
        assert (await client.post("/api/scans/1/abort")).status_code == 200
        ended = await until(client, "/api/scans/1", "aborted")
        assert (ended["done"], ended["why"]) == (1, "aborted by page (127.0.0.1)")
        assert 11.0 < RailActor.all["rail"].has["x"] < 20.0, "it was stopped on its way"
        run = Path(ended["directory"]).name
        assert (await client.post("/api/scans/1/abort")).status_code == 409
        assert (await client.post("/api/scans/9/abort")).status_code == 404
        points = (await client.get(f"/api/runs/{run}/scans/0")).json()
        assert points["points"]["rail_x"] == [20.0]
        assert (points["units"]["rail_x"], points["metadata"]["sample"]) == ("mm", "knife 8")
        assert (await client.get(f"/api/runs/{run}/scans/1")).status_code == 404


async def test_runs_are_read_exported_and_repaired(tmp_path: Path, serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        assert (await client.post("/api/runs/recover")).status_code == 409
        await client.post("/api/recording/start")
        for _ in range(5):
            await lab.read("rail", "x.position")
        books = lab.manager.v4_data
        await come_to(lambda: any(r.subscriber == "recorder" and r.offered >= 5 for r in books.ledger().rows()))
        run = Path((await client.post("/api/recording/stop")).json()["directory"]).name
        stream = f"/api/runs/{run}/streams/rail.x.position"
        got = await client.get(f"{stream}?start=1&rows=3")
        assert got.status_code == 200, got.text
        table = pa.ipc.open_stream(got.content).read_all()
        assert (table.num_rows, table["sequence"].to_pylist()) == (3, [1, 2, 3])
        assert pa.ipc.open_stream((await client.get(f"{stream}?start=9")).content).read_all().num_rows == 0
        assert (await client.get(f"/api/runs/{run}/streams/nothing")).status_code == 404
        job = (await client.post(f"/api/runs/{run}/export", json={"to": ["parquet"]})).json()
        assert job["state"] in ("waiting", "in hand")
        recovery = (await client.post("/api/runs/recover", json={"all": True})).json()
        (made,) = (await until(client, f"/api/jobs/{job['number']}", "done"))["result"]
        assert all(Path(file).is_relative_to(tmp_path) for file in made["files"])
        assert made["missing"] == {}
        assert (await until(client, f"/api/jobs/{recovery['number']}", "done"))["what"] == "recover"
        assert (await client.get("/api/jobs/99")).status_code == 404
        assert (await client.post(f"/api/runs/{run}/export", json={"to": ["exe"]})).status_code == 422
        assert (await client.post("/api/runs/nothing/export", json={"to": ["csv"]})).status_code == 404


async def test_logs_are_begun_and_ended(tmp_path: Path, serve_rails: Any) -> None:
    async with serve_rails() as (client, _):
        begun = await client.post("/api/logs", json={"name": "room", "channels": ["rail.*"], "rotate": None})
        assert Path(begun.json()["directory"]).is_relative_to(tmp_path)
        assert (await client.post("/api/logs", json={"name": "room"})).status_code == 409
        assert (await client.post("/api/logs", json={"name": "../x"})).status_code == 422
        assert [log["name"] for log in (await client.get("/api/logs")).json()] == ["room"]
        assert (await client.post("/api/logs/room/stop")).json()["name"] == "room"
        assert (await client.post("/api/logs/room/stop")).status_code == 404


async def test_a_viewer_looks_and_does_none_of_it(serve_rails: Any) -> None:
    operator, viewer = "an operator's token", "a viewer's own token"
    async with serve_rails(token=operator, viewer_token=viewer) as (client, lab):
        looks = {"Authorization": f"Bearer {viewer}"}
        for path in ("/api/scans", "/api/presets", "/api/logs", "/api/jobs", "/api/control"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=looks)).status_code == 200
        for path in (
            "/api/scans",
            "/api/scans/1/abort",
            "/api/presets",
            "/api/presets/one/load",
            "/api/logs",
            "/api/runs/recover",
            "/api/instruments/rail/control",
        ):
            refused = await client.post(path, headers=looks)
            assert (refused.status_code, refused.json()["error"]) == (403, "ViewerOnly")
        assert lab.control.holders() == {}
        assert lab.presets.names() == []
        acts = {"Authorization": f"Bearer {operator}"}
        stopped = await asyncio.wait_for(client.post("/api/stop-all", headers=acts), 10)
        assert stopped.status_code == 200
        assert lab.manager.broker.latched
