"""What nobody sends who means well, by HTTP and over the live connection: refused, and no failure of the server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

Rate: Any = pytest.importorskip("duodaq.web._rates").Rate
gate: Any = pytest.importorskip("duodaq.web._gate")
websockets = pytest.importorskip("websockets.asyncio.client")

FAR, LONG = int("9" * 400), "9" * 5000
JSON = {"content-type": "application/json"}


def asked(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, **fields}


async def test_origins_that_are_none_are_refused_everywhere(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        for origin in ("http://[", "http://]", "http://[::1", "http://[x]", "//", "", "http://" + "a" * 5000):
            for path in ("/", "/api/lab", "/metrics", "/api/nowhere"):
                assert (await client.get(path, headers={"origin": origin})).status_code == 403, (origin, path)
            for path in ("/api/stop-all", "/api/instruments/rail/stop"):
                assert (await client.post(path, headers={"origin": origin})).status_code == 403, (origin, path)
        assert not lab.manager.broker.latched


async def test_pages_of_other_sites_ask_no_device_and_use_up_no_requests(
    serve_rails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "Rate", lambda per_s, at_once: Rate(per_s, at_once, now_s=lambda: 0.0))
    async with serve_rails(0.5) as (client, lab):
        await lab.presets.save("p")
        for site in ("cross-site", "same-site"):
            image = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
            for path in ("/api/presets/p/diff", "/api/session", "/metrics"):
                assert (await client.get(path, headers=image)).status_code == 403
            assert (await client.get("/", headers=image)).status_code == 200, "somebody followed a link"
            assert (await client.get("/", headers=image)).status_code == 429
        own = {"sec-fetch-site": "same-origin"}
        assert (await client.get("/api/presets/p/diff", headers=own)).status_code == 200


async def test_huge_numbers_and_long_words_are_refused_by_http(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        rail = "/api/instruments/rail"
        bodies = [
            asked("execute", name=name, args=["x", far], wait=wait)
            for name in ("move", "move_relative")
            for far in (FAR, -FAR)
            for wait in (True, False)
        ]
        bodies += [asked("set", name="gain", value=FAR), asked("set", name="x.position", value=FAR)]
        bodies += [asked("execute", name="move", kwargs={"axis": "x", "position": FAR})]
        bodies += [asked("get", name=LONG), asked("set", name=LONG)]
        for body in bodies:
            answer = await client.post(f"{rail}/command", json=body)
            assert answer.status_code == 422, (str(body)[:80], answer.text[:200])
        huge = f'{{"kind": "execute", "name": "move", "args": ["x", {LONG}]}}'
        assert (await client.post(f"{rail}/command", content=huge, headers=JSON)).status_code in (400, 422)
        for path in (f"/api/jobs/{LONG}", f"/api/scans/{FAR}", f"/api/runs/{LONG}", f"/api/presets/{LONG}"):
            assert (await client.get(path)).status_code in (404, 422), path[:40]
        for path in (f"/api/jobs/{LONG}/cancel", f"/api/scans/{LONG}/abort", f"/api/instruments/{LONG}/stop"):
            assert (await client.post(path)).status_code in (404, 422), path[:40]
        assert (await client.post(f"{rail}/control", json={"who": LONG})).status_code == 422
        assert lab.control.holders() == {}


async def test_what_is_wild_on_the_live_connection_is_refused_and_a_stop_carried_out(serve_rails: Any) -> None:
    wild: list[tuple[str, str | None, Any, int | None]] = [
        ("command", "rail", asked("execute", name="move", args=["x", FAR]), 422),
        ("command", "rail", asked("set", name="gain", value=FAR), 422),
        ("command", "rail", asked("set", name="gain", value=[FAR]), None),
        ("command", "rail", [1], 422),
        ("job_cancel", LONG, None, 404),
        ("job_cancel", "²", None, 404),
        ("job_cancel", "-1", None, 404),
        ("scan_pause", LONG, None, 404),
        ("scan_abort", "1e3", None, 404),
        ("stop", None, None, 422),
        ("stop", LONG, None, 404),
        ("stop", "rail", {"axis": LONG}, 422),
        ("export", "a\0b", {"to": ["csv"]}, 404),
        ("preset_load", LONG, None, 404),
        ("record_stop", "extra", None, 422),
    ]
    async with serve_rails() as (client, lab):
        place = str(client.base_url).replace("http", "ws") + "api/live"
        async with websockets.connect(place, compression=None, max_size=None, proxy=None) as live:
            for number, (name, target, body, status) in enumerate(wild):
                told = await answered(live, {"id": number, "name": name, "target": target, "body": body})
                assert not told["ok"], told
                assert told["status"] < 500, told
                assert status in (None, told["status"]), (name, told)
            await live.send('{"type": "do", "id": 99, "name": "command", "target": ' + LONG + "}")
            assert not lab.manager.broker.latched
            for extra in ({"target": "extra"}, {"body": {"why": "spilled"}}, {"target": FAR, "body": [1]}):
                told = await answered(live, {"id": "stop", "name": "stop_all", **extra})
                assert told["ok"], told
                assert lab.manager.broker.latched
                lab.manager.reset_stop("test")


async def answered(live: Any, message: dict[str, Any]) -> dict[str, Any]:
    """What is answered to a message with a number of its own."""
    await live.send(json.dumps({"type": "do", **message}))
    async with asyncio.timeout(10):
        while True:
            said = await live.recv()
            if isinstance(said, str) and (told := json.loads(said))["type"] == "done" and told["id"] == message["id"]:
                return told
