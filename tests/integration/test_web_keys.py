"""Control by a key, over plain HTTP: whatever is asked with it keeps it, and those that hold nothing make room."""

from __future__ import annotations

from typing import Any

import pytest

from duodaq.clock import Deadline, pause

visitors: Any = pytest.importorskip("duodaq.web._visitors")


async def take(client: Any, instrument: str, **wish: Any) -> Any:
    return await client.post(f"/api/instruments/{instrument}/control", json=wish)


@pytest.mark.parametrize("path", ["/api/status", "/api/instruments/rail/panel", "/api/nowhere", "/app.js"])
async def test_any_request_with_the_key_keeps_control(
    serve_rails: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    now = [0.0]
    monkeypatch.setattr(visitors, "monotonic_s", lambda: now[0])
    monkeypatch.setattr(visitors, "_LOOK_S", 0.002)
    async with serve_rails() as (client, lab):
        key = {"X-Duodaq-Key": (await take(client, "rail", who="anna")).json()["key"]}
        for _ in range(3):
            now[0] += 50
            await client.get(path, headers=key)
            await pause(0.02)  # it is looked after meanwhile, at a time of its own
            assert lab.control.holder("rail") is not None
        now[0] += 61
        deadline = Deadline(10)
        while lab.control.holders() and not deadline.passed:
            await pause(0.002)
        assert lab.control.holders() == {}


async def test_keys_that_hold_nothing_make_room(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "MOST_KEYS", 2)
    async with serve_rails() as (client, lab):
        for number in range(5):
            assert (await take(client, "rail", who=f"w{number}", take_over=True)).status_code == 200
        honest = await take(client, "other", who="honest")
        assert honest.status_code == 200, honest.text
        assert {name: one.name for name, one in lab.control.holders().items()} == {"rail": "w4", "other": "honest"}
        full = await take(client, "rail", who="one more", take_over=True)
        assert (full.status_code, lab.control.holders()["rail"].name) == (429, "w4"), "each key holds something"
        key = {"X-Duodaq-Key": honest.json()["key"]}
        assert (await client.post("/api/instruments/other/release", headers=key)).json() == {"released": True}
