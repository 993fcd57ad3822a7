"""What the HTTP API refuses: it says why, and nothing has changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.served_lamp import LOOK, TOKEN, definition, heard, serving

from duodaq.app import Lab
from duodaq.model import InstrumentDefinition

httpx = pytest.importorskip("httpx")
PageServer: Any = pytest.importorskip("duodaq.web").PageServer
_live: Any = pytest.importorskip("duodaq.web._live")
websockets = pytest.importorskip("websockets.asyncio.client")


async def test_every_refusal_says_why_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        lamp = "/api/instruments/lamp"
        asked: list[tuple[str, Any, int, str]] = [
            (f"{lamp}/command", {"kind": "set", "name": "level", "value": 99}, 422, "99 is beyond 0 to 10"),
            (f"{lamp}/command", {"kind": "set", "name": "colour", "value": 1}, 422, "no parameter 'colour'"),
            (f"{lamp}/command", {"kind": "set", "name": "level", "value": [1]}, 422, "level does not take [1]"),
            (
                f"{lamp}/command",
                {"kind": "execute", "name": "wait", "args": ["soon"]},
                422,
                "time_s is a number, and 'soon'",
            ),
            (
                f"{lamp}/command",
                {"kind": "execute", "name": "wait", "args": [None]},
                422,
                "time_s is a number, and None",
            ),
            (f"{lamp}/command", {"kind": "execute", "name": "dance"}, 422, "no operation 'dance'"),
            (f"{lamp}/command", {"kind": "execute", "name": "arm"}, 403, "arming"),
            (f"{lamp}/command", {"kind": "get"}, 422, "needs a name"),
            (f"{lamp}/command", {"kind": "get", "name": "level", "more": 1}, 422, "more"),
            (f"{lamp}/command", {"kind": "fly", "name": "level"}, 422, "kind"),
            (f"{lamp}/command", {"kind": "get", "name": "level", "deadline_s": -1}, 422, "deadline_s"),
            ("/api/instruments/nobody/command", {"kind": "get", "name": "level"}, 404, "nobody"),
            ("/api/recording/stop", {}, 409, "no recording"),
            ("/api/runs/nothing/labels", {"sample": "x"}, 404, "nothing"),
            ("/api/runs/../labels", {"sample": "x"}, 405, ""),
        ]
        for path, body, status, words in asked:
            answer = await lab.post(path, body)
            assert answer.status_code == status, (path, body, answer.text)
            assert words in answer.json()["detail"]
        assert (await lab.post("/api/instruments/lamp/command", {"kind": "get", "name": "level"})).json()["result"] == 1


class OwnLaser:
    """A laser of somebody's own."""

    def __init__(self) -> None:
        self.emission, self.on = False, False

    def arm_laser(self) -> bool:
        self.on = True
        return True

    def laser_off(self) -> bool:
        self.on = False
        return True


async def test_a_laser_of_ones_own_is_armed_where_the_lab_file_says_so_alone(tmp_path: Path) -> None:
    own = InstrumentDefinition("own", "v2", OwnLaser, watched=("emission",))
    arming = ({"kind": "execute", "name": "arm_laser"}, {"kind": "set", "name": "emission", "value": True})
    for allowed, status in ((), 403), (("own",), 200):
        lab = definition(tmp_path, arming=allowed)
        async with contextlib.AsyncExitStack() as stack:
            lab = await stack.enter_async_context(Lab(replace(lab, instruments=(own,), alarms=())))
            page = await stack.enter_async_context(PageServer(lab))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=page.address, trust_env=False))
            for body in arming:
                assert (await client.post("/api/instruments/own/command", json=body)).status_code == status
            for body in ({"kind": "execute", "name": "laser_off"}, {"kind": "set", "name": "emission", "value": False}):
                assert (await client.post("/api/instruments/own/command", json=body)).status_code == 200


async def test_malformed_oversized_and_foreign_requests_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        command, json_type = "/api/instruments/lamp/command", {"content-type": "application/json"}
        good = b'{"kind":"set","name":"level","value":7}'
        asked = [
            ({"content": b"{", "headers": json_type}, 422),
            ({"content": b"[" * 30000, "headers": json_type}, 400),
            ({"content": b"\xff\xfe", "headers": json_type}, 422),
            ({"content": b" " * 70000, "headers": json_type}, 413),
            ({"content": good, "headers": {"content-type": "text/plain"}}, 415),
            ({"content": good, "headers": {**json_type, "origin": "http://evil.example"}}, 403),
            ({"content": good, "headers": {**json_type, "sec-fetch-site": "cross-site"}}, 403),
            ({"content": good, "headers": {**json_type, "host": "evil.example"}}, 403),
        ]
        for request, status in asked:
            answer = await lab.client.post(command, **request)
            assert answer.status_code in (status, 400), (request, answer.text)
            assert answer.json()["detail"]
            assert answer.json()["error"] != "NoSuchPlace"

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b" " * 8192

        with contextlib.suppress(httpx.HTTPError):  # it is answered before it has been sent
            assert (await lab.client.post(command, content=endless(), headers=json_type)).status_code == 413
        value = await lab.post(command, {"kind": "get", "name": "level"})
        assert value.json()["result"] == 1
        headers = value.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["wire/start", "instruments/lamp/restart", "instruments/lamp/release"])
async def test_what_is_no_json_is_refused_where_no_body_is_looked_at_too(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as lab:
        headers = {"content-type": "application/json"}
        for content, status in ((b'{"a":', 422), (b"\xff\xfe", 422), (b"[" * 30000, 400)):
            answer = await lab.client.post(f"/api/{path}", content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (status, "WrongRequest")
        assert (await lab.post("/api/wire/stop")).status_code == 409, "nothing was begun"
        stopped = await lab.client.post("/api/stop-all", content=b"{", headers=headers)
        assert stopped.status_code == 200, "a stop is not refused because of how it is asked for"


async def test_tokens_decide_who_looks_and_who_acts(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN, viewer_token=LOOK, arming=("lamp",)) as lab:
        arm = {"kind": "execute", "name": "arm"}
        for token, looks, acts in ((None, 401, 401), ("wrong", 401, 401), (LOOK, 200, 403), (TOKEN, 200, 200)):
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            assert (await lab.get("/api/status", headers=headers)).status_code == looks
            assert (
                await lab.client.post("/api/stop-all/reset", json={"who": "x"}, headers=headers)
            ).status_code == acts
            answer = await lab.client.post("/api/instruments/lamp/command", json=arm, headers=headers)
            assert answer.status_code == acts
        assert [(await lab.get(path)).status_code for path in ("/", "/app.js", "/anything")] == [200, 200, 401]
        assert (await lab.get("/api/session")).json() == {"role": "nobody", "tokens": True}
        with pytest.raises(Exception, match="401"):
            await lab.live().__aenter__()
        entered = await lab.post("/api/session", {"token": LOOK})
        assert "HttpOnly" in entered.headers["set-cookie"]
        assert "SameSite=strict" in entered.headers["set-cookie"]
        assert (await lab.get("/api/status")).status_code == 200
        assert (await lab.post("/api/stop-all")).status_code == 403
        async with lab.live(authorization=f"Bearer {LOOK}") as live:
            assert (await heard(live, "hello"))["role"] == "viewer"
            await live.send(json.dumps({"type": "do", "id": 1, "name": "stop_all"}))
            assert (await heard(live, "done"))["status"] == 403


async def test_wrong_tokens_are_counted_and_the_right_one_is_let_in_whoever_guesses(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as lab:
        answers = [(await lab.post("/api/session", {"token": f"guess {n}"})).status_code for n in range(12)]
        assert answers == [401] * 10 + [429] * 2
        wrong, right = ({"authorization": f"Bearer {token}"} for token in ("wrong", TOKEN))
        assert (await lab.get("/api/status", headers=wrong)).status_code == 429
        assert (await lab.client.post("/api/stop-all", headers=wrong)).status_code == 429
        assert (await lab.post("/api/session", {"token": TOKEN})).status_code == 200
        lab.client.cookies.clear()
        for stop in ("/api/stop-all", "/api/instruments/lamp/stop"):
            assert (await lab.client.post(stop, headers=right)).status_code == 200
        assert lab.lab.manager.broker.latched
        assert (await lab.get("/api/status", headers=right)).status_code == 200


async def test_too_many_requests_are_refused_but_never_a_stop(tmp_path: Path) -> None:
    async with serving(tmp_path, requests_per_s=0.01) as lab:
        assert (await lab.get("/api/session")).status_code == 429
        assert (await lab.post("/api/recording/stop")).status_code == 429, "no stop of anything that moves"
        for _ in range(3):
            assert (await lab.post("/api/instruments/lamp/stop")).status_code == 200
            assert (await lab.post("/api/stop-all")).status_code == 200


async def test_what_is_no_stop_and_calls_itself_one_is_bounded_as_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = _live.Rate
    monkeypatch.setattr(_live, "Rate", lambda *_: rate(0.001, 2))
    async with serving(tmp_path) as lab, lab.live() as live:
        for _ in range(3):
            await live.send(json.dumps({"type": "credit", "name": "stop_all", "rows": 1}))
        refused = await heard(live, "done")
        assert (refused["status"], refused["error"]) == (429, "TooMany")
        await live.send(json.dumps({"type": "do", "id": 7, "name": "stop_all"}))
        done = await heard(live, "done")
        assert (done["id"], done["ok"]) == (7, True)
