"""The HTTP API and the live connection, as programs use them: what is done, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.served_lamp import LOOK, TOKEN, Served, definition, heard, seen, serving, tables_of

from duodaq import clock
from duodaq.app import Lab
from duodaq.model import (
    AlarmDefinition,
    ObserverDefinition,
    Scalar,
    Spectrum,
)
from duodaq.schema import frame_batch, scalar_batch, spectrum_batch

httpx = pytest.importorskip("httpx")
PageServer: Any = pytest.importorskip("duodaq.web").PageServer
_live: Any = pytest.importorskip("duodaq.web._live")
websockets = pytest.importorskip("websockets.asyncio.client")
websockets_closed = pytest.importorskip("websockets.exceptions").ConnectionClosed


async def test_a_lab_is_described_watched_and_commanded(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        facts = (await lab.get("/api/lab")).json()
        (lamp,) = facts["instruments"]
        assert (facts["lab"], facts["role"], lamp["id"], lamp["runtime"]) == ("small", "operator", "lamp", "v4")
        level = {"name": "level", "unit": "V", "settable": True, "emits": False, "held": False}
        assert lamp["panel"]["settings"] == [level]
        assert [one["name"] for one in lamp["panel"]["operations"]] == ["wait", "arm"]
        assert (await lab.get("/api/status")).json()["v4"] == "running"
        assert [c["channel"] for c in (await lab.get("/api/channels")).json()] == ["level"]
        done = await lab.post("/api/instruments/lamp/command", {"kind": "set", "name": "level", "value": 2.5})
        assert (done.status_code, done.json()["result"]) == (200, 2.5)
        read = await lab.post("/api/instruments/lamp/read", {"channel": "level"})
        assert (read.json()["value"], read.json()["unit"]) == (2.5, "V")
        assert {p["name"]: p["value"] for p in (await lab.get("/api/parameters")).json()}["level"] == 2.5
        assert (await lab.get("/api/ports")).json() == []


async def test_stop_all_latches_ends_what_is_in_hand_and_is_reset_by_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        wait = {"kind": "execute", "name": "wait", "args": [0.05]}
        begun = await lab.post("/api/instruments/lamp/command", {**wait, "wait": False})
        assert begun.json() == {"operation": 1, "result": None}
        assert (await lab.post("/api/instruments/lamp/command", wait)).json()["result"] == "waited"
        assert [one["state"] for one in (await lab.get("/api/operations")).json()] == ["done", "done"]
        assert (await lab.post("/api/stop-all")).json()["failures"] == {}
        refused = await lab.post("/api/instruments/lamp/command", wait)
        assert (refused.status_code, refused.json()["error"]) == (409, "UnsafeStateError")
        assert (await lab.post("/api/stop-all/reset", {"who": ""})).status_code == 422
        other = await lab.post("/api/stop-all/reset", {"who": "Ada", "stop": 77})
        assert (other.status_code, other.json()["error"]) == (409, "AnotherStop")
        assert lab.lab.manager.broker.latched
        assert (await lab.post("/api/stop-all/reset", {"who": "Ada"})).status_code == 200
        assert (await lab.post("/api/instruments/lamp/command", wait)).status_code == 200
        assert any("stop-all" in line["event"] for line in (await lab.get("/api/log?level=warning")).json())


async def test_live_connection_brings_states_rows_and_answers(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        assert (await heard(live, "hello"))["lab"] == "small"
        assert (await heard(live, "lab"))["lab"]["state"] == "running"
        await live.send(json.dumps({"type": "streams", "names": ["lamp.level"]}))
        await live.send(
            json.dumps({"type": "do", "id": "a", "name": "command", "target": "lamp", "body": {"kind": "start"}})
        )
        assert (await heard(live, "done"))["ok"]
        await live.send(json.dumps({"type": "credit", "rows": 2}))
        table = await seen(live, "rows")
        assert table.schema.metadata[b"stream"] == b"lamp.level"
        assert table["value"].to_pylist()[0] == 1.0
        assert abs(table["t_ms"].to_pylist()[-1] - clock.utc_ns() / 1e6) < 10_000
        for wrong in ("{", "[]", '{"type":"fly"}', '{"type":"credit","rows":"many"}', '{"type":"image","line":[1]}'):
            await live.send(wrong)
            assert (await heard(live, "done"))["status"] == 400
        await live.send(
            json.dumps({"type": "do", "id": 2, "name": "command", "target": "lamp", "body": {"kind": "fly"}})
        )
        assert (await heard(live, "done"))["status"] == 422
        while (now := (await heard(live, "now"))["now"])["values"].get("lamp.level") is None:
            pass
        assert now["values"]["lamp.level"][1:] == [1.0, "V"]


async def test_a_browser_that_comes_is_shown_what_was_before_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        await lab.post("/api/instruments/lamp/command", {"kind": "start"})
        async with lab.live() as live:
            while len((await heard(live, "now"))["now"]["values"]) == 0:
                pass
        async with lab.live() as live:
            await live.send(json.dumps({"type": "streams", "names": ["lamp.level", "lamp.nothing"]}))
            await live.send(json.dumps({"type": "credit", "rows": 2}))
            past, rows = await seen(live, "past"), await seen(live, "rows")
            assert past.schema.metadata[b"unit"] == b"V"
            assert past["t_ms"].to_pylist()[-1] < rows["t_ms"].to_pylist()[0]


async def test_numbers_of_different_units_never_come_as_one_curve(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        await live.send(json.dumps({"type": "streams", "names": ["lamp.power"]}))
        await live.send(json.dumps({"type": "credit", "rows": 64}))
        await live.send("{")
        await heard(live, "done")  # what was said before it has been heard
        for number, unit in enumerate(("W", "W", "dBm", "W")):
            row = Scalar("lamp", "power", unit, number, number, float(number), "v4")
            lab.lab.manager.v4_data.publish(scalar_batch([row]))
        found: list[tuple[bytes, float]] = []
        async with asyncio.timeout(10):
            while len(found) < 4:
                message = await live.recv()
                for table in tables_of(message) if isinstance(message, bytes) else ():
                    found += [(table.schema.metadata[b"unit"], value) for value in table["value"].to_pylist()]
        assert found == [(b"W", 0.0), (b"W", 1.0), (b"dBm", 2.0), (b"W", 3.0)]


async def test_the_latest_vector_or_spectrum_comes_by_credit_and_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        publisher = lab.lab.manager.v4_data

        def measure(number: int) -> None:
            axis = np.array([400.0, 500.0])
            row = Spectrum("lamp", "colour", "W", number, number, axis * number, axis, "nm", "v4")
            publisher.publish(spectrum_batch([row]))

        measure(1)
        async with lab.live() as live:
            await live.send(json.dumps({"type": "streams", "names": ["lamp.mark"]}))
            await live.send(json.dumps({"type": "credit", "rows": 64}))
            await live.send("{")
            await heard(live, "done")  # what was said before it has been heard
            for number in (2, 3):
                measure(number)
                publisher.publish(scalar_batch([Scalar("lamp", "mark", "V", number, number, 1.0, "v4")]))
                await seen(live, "rows")
            await live.send(json.dumps({"type": "traces", "names": ["lamp.colour"]}))
            await live.send(json.dumps({"type": "credit", "images": 1}))
            trace = await seen(live, "trace")
            facts = {key: trace.schema.metadata[key] for key in (b"stream", b"unit", b"axis_unit", b"sequence")}
            assert list(facts.values()) == [b"lamp.colour", b"W", b"nm", b"3"]
            assert (trace["axis"].to_pylist(), trace["value"].to_pylist()) == ([400, 500], [1200, 1500])
            await live.send(json.dumps({"type": "traces", "names": "lamp.colour"}))  # none: a text is no list


async def test_closing_a_browser_stops_nothing_that_it_began(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        async with lab.live() as live:
            wait = {"kind": "execute", "name": "wait", "args": [0.3]}
            await live.send(json.dumps({"type": "do", "id": 1, "name": "command", "target": "lamp", "body": wait}))
            while not (await heard(live, "now"))["now"]["operations"]:
                pass
        states = {"in hand"}
        while states == {"in hand"}:
            await clock.pause(0.02)
            states = {one["state"] for one in (await lab.get("/api/operations")).json()}
        assert states == {"done"}


async def test_live_connection_from_another_page_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        for wrong in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
            with pytest.raises(Exception, match="403"):
                await lab.live(**wrong).__aenter__()
        assert "handshake" not in (await lab.get("/api/log")).text


async def test_images_come_by_credit_the_latest_first_and_raw_on_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        await live.send(json.dumps({"type": "image", "stream": "cam.frames", "low": 0, "high": 254}))
        await live.send(json.dumps({"type": "credit", "images": 1}))
        publisher, number = lab.lab.manager.v4_data, 0

        async def shoot() -> None:
            nonlocal number
            while True:
                pixels = np.full((4, 6), number, np.uint16)
                publisher.publish(
                    frame_batch(
                        pixels, instrument="cam", channel="frames", t_ns=1, sequence=number, frame_number=number
                    )
                )
                number += 1
                await clock.pause(0.005)

        shooting = asyncio.create_task(shoot())
        try:
            first = (await seen(live, "image")).to_pylist()[0]
            assert set(first["pixels"]) == {first["number"]}
            while number < first["number"] + 20:
                await clock.pause(0.01)
            await live.send(json.dumps({"type": "credit", "images": 1}))
            second = (await seen(live, "image")).to_pylist()[0]
            assert second["number"] >= first["number"] + 18
            raw = await lab.get("/api/streams/cam.frames/frame")
            assert raw.content[:6] == b"\x93NUMPY"
            assert (await lab.get("/api/streams/cam.nothing/frame?timeout_s=0.05")).status_code == 404
        finally:
            shooting.cancel()
            await asyncio.gather(shooting, return_exceptions=True)


async def test_saturation_is_where_the_camera_says_and_not_where_its_pixels_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        await live.send(json.dumps({"type": "image", "stream": "lamp.frames", "low": 0, "high": 4094}))
        await live.send(json.dumps({"type": "credit", "images": 8}))
        pixels = np.array([[0, 4094, 4095]], np.uint16)
        facts: dict[str, Any] = {"instrument": "lamp", "channel": "frames", "t_ns": 1, "sequence": 0, "frame_number": 0}

        async def shown() -> dict[str, Any]:
            seeing = asyncio.create_task(seen(live, "image"))
            while not seeing.done():
                lab.lab.manager.v4_data.publish(frame_batch(pixels, **facts))
                await clock.pause(0.01)
            return (await seeing).to_pylist()[0]

        found = await shown()
        assert (list(found["pixels"]), found["saturated"], found["full"]) == ([0, 254, 255], 1, 4095)


async def test_slow_browsers_cost_the_lab_nothing_and_their_losses_are_theirs(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(lab.live()) for _ in range(3)]
        for live in slow:
            await live.send(json.dumps({"type": "streams", "names": ["lamp.level"]}))
        async with lab.live() as quick:
            await quick.send(json.dumps({"type": "streams", "names": ["lamp.level"]}))
            await quick.send(json.dumps({"type": "credit", "rows": 64}))
            await lab.post("/api/instruments/lamp/command", {"kind": "start"})
            for _ in range(4):
                await seen(quick, "rows")
        books = lab.lab.manager.v4_data.ledger()
        row = books.row("lamp.level", "page")
        assert books.balanced
        assert row.lost == 0


async def test_images_come_for_all_of_the_credit_that_was_given(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        await live.send(json.dumps({"type": "image", "stream": "lamp.frames"}))
        await live.send(json.dumps({"type": "credit", "images": 3}))
        async with asyncio.timeout(10):
            for number in range(3):
                seeing = asyncio.create_task(seen(live, "image"))
                while not seeing.done():
                    facts: dict[str, Any] = {"instrument": "lamp", "channel": "frames", "sequence": number}
                    pixels = np.zeros((4, 4), np.uint16)
                    lab.lab.manager.v4_data.publish(frame_batch(pixels, t_ns=1, frame_number=number, **facts))
                    await clock.pause(0.01)


async def stopped_browser(address: str, *said: dict[str, Any]) -> asyncio.StreamWriter:
    """One that says what it wants, and takes nothing from then on."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect((httpx.URL(address).host, httpx.URL(address).port))
    reader, writer = await asyncio.open_connection(sock=line, limit=1024)
    host = address.split("/")[2]
    writer.write(
        f"GET /api/live HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    for message in said:
        text = json.dumps(message).encode()
        assert len(text) < 126
        writer.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
    await writer.drain()
    return writer


async def test_a_browser_that_takes_nothing_any_more_is_gone_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_SEND_S", 0.2)
    async with serving(tmp_path) as lab:
        browser = await stopped_browser(
            lab.address,
            {"type": "do", "id": 1, "name": "control", "target": "lamp", "body": {}},
            {"type": "image", "stream": "lamp.frames"},
            {"type": "credit", "images": 64},
        )
        pixels, limit = np.zeros((1024, 1024), np.uint16), clock.Deadline(20)
        while not lab.lab.control.holders():
            assert not limit.passed, "it never was there"
            await clock.pause(0.01)
        while lab.lab.control.holders():
            assert not limit.passed, "it is still there"
            facts: dict[str, Any] = {"instrument": "lamp", "channel": "frames", "sequence": 1, "frame_number": 1}
            lab.lab.manager.v4_data.publish(frame_batch(pixels, t_ns=1, **facts))
            await clock.pause(0.01)
        browser.transport.abort()


async def test_recording_is_begun_ended_listed_labelled_and_compared(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab:
        for _ in range(2):
            assert Path((await lab.post("/api/recording/start")).json()["directory"]).is_relative_to(tmp_path)
            assert (await lab.post("/api/recording/start")).status_code == 409
            await lab.post("/api/instruments/lamp/read", {"channel": "level"})
            ended = (await lab.post("/api/recording/stop")).json()
            assert (ended["complete"], ended["files"]) == (True, {"lamp.level.arrows": 1})
        newest, oldest = (await lab.get("/api/runs")).json()
        assert newest["name"] > oldest["name"]
        labelled = await lab.post(f"/api/runs/{newest['name']}/labels", {"sample": "knife 3", "tags": ["a"]})
        assert labelled.json()["sample"] == "knife 3"
        assert [run["name"] for run in (await lab.get("/api/runs?text=knife")).json()] == [newest["name"]]
        assert (await lab.get(f"/api/runs/{newest['name']}")).json()["streams"]["lamp.level"]["rows"] == 1
        differing = (await lab.get(f"/api/runs/{newest['name']}/diff/{oldest['name']}")).json()
        assert differing["labels.sample"][0] == "knife 3"


async def test_secrets_do_not_go_with_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(f'''
web = {{ token = "{TOKEN}" }}
# viewer_token = "an-older-token"
[alarms.hot]
webhook = "https://hooks.example.org/services/HOOK?key=QUERY"
note = "kept"
[telemetry]
otlp = "http://me:OTLP@127.0.0.1:4318"
[instruments.camera.args]
password = "ARGUMENT"
''')
    hot = AlarmDefinition("hot", "lamp", "level", high=9e9, webhook="https://hooks.example.org/old/HOOK")
    asked = replace(
        definition(tmp_path, token=TOKEN, viewer_token=LOOK),
        file=file,
        alarms=(hot,),
        observers=ObserverDefinition(otlp="http://me:OTLP@127.0.0.1:9"),
    )
    lamp = replace(asked.instruments[0], options={"api_key": "OPTION"})
    async with Lab(replace(asked, instruments=(lamp, *asked.instruments[1:]))) as lab:
        place = await lab.start_recording()
        await lab.stop_recording()
    written = "".join(path.read_text() for path in place.iterdir() if path.suffix in (".json", ".jsonl"))
    assert "https://hooks.example.org/(left out)" in written
    assert "kept" in written
    secrets = (TOKEN, LOOK, "an-older-token", "HOOK", "QUERY", "OTLP", "ARGUMENT", "OPTION")
    assert [secret for secret in secrets if secret in written] == []


async def test_server_ends_with_browsers_connected_and_commands_in_hand(tmp_path: Path) -> None:
    async with Lab(definition(tmp_path)) as lab, PageServer(lab) as page:
        place = page.address.replace("http", "ws") + "api/live"
        async with websockets.connect(place, proxy=None) as live:
            long = {"kind": "execute", "name": "wait", "args": [60]}
            await live.send(json.dumps({"type": "do", "id": 1, "name": "command", "target": "lamp", "body": long}))
            await heard(live, "hello")
            await page.aclose()
            with pytest.raises(websockets_closed, match=r"1001|1012|going away|service restart"):
                await heard(live, "nothing")


async def test_a_request_in_hand_when_the_server_ends_is_one_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("duodaq").addHandler(caplog.handler)
    try:
        async with (
            Lab(definition(tmp_path)) as lab,
            PageServer(lab) as page,
            httpx.AsyncClient(base_url=page.address, trust_env=False, timeout=20) as client,
        ):
            long = {"kind": "execute", "name": "wait", "args": [60]}
            asked = asyncio.create_task(client.post("/api/instruments/lamp/command", json=long))
            while not lab.manager.instruments() or not (await client.get("/api/operations")).json():
                await clock.pause(0.01)
            await page.aclose()
            await asyncio.wait([asked])
            asked.exception()
    finally:
        logging.getLogger("duodaq").removeHandler(caplog.handler)
    records = {id(one): one.msg for one in caplog.records}.values()  # whether or not the log has been configured here
    said = [one for one in records if isinstance(one, dict) and one.get("logger") == "duodaq.web"]
    assert [one for one in said if one.get("exc_info")] == []
    assert [one["event"] for one in said].count("a request in hand ended with the server") == 1


async def too_bright(lab: Served, **headers: Any) -> None:
    """Have the lamp beyond its alarm's limit, and that measured."""
    await lab.post("/api/instruments/lamp/command", {"kind": "set", "name": "level", "value": 6}, **headers)
    assert (await lab.post("/api/instruments/lamp/read", {"channel": "level"}, **headers)).json()["value"] == 6


async def alarm_is(lab: Served, state: str, **headers: Any) -> dict[str, Any]:
    """The one alarm, once it is in that state."""
    async with asyncio.timeout(10):
        while True:
            (alarm,) = (await lab.get("/api/alarms", **headers)).json()
            if alarm["state"] == state:
                return alarm
            await clock.pause(0.01)


async def test_alarm_is_listed_and_acknowledged_by_an_operator_alone(tmp_path: Path) -> None:
    operator, viewer = ({"headers": {"Authorization": f"Bearer {token}"}} for token in (TOKEN, LOOK))
    async with serving(tmp_path, token=TOKEN, viewer_token=LOOK) as lab:
        place = "/api/alarms/bright/acknowledge"
        assert (await lab.get("/api/alarms")).status_code == 401
        assert (await alarm_is(lab, "normal", **viewer))["raised"] == 0
        nothing = await lab.post(place, {}, **operator)
        assert (nothing.status_code, nothing.json()["state"]) == (200, "normal")
        await too_bright(lab, **operator)
        raised = await alarm_is(lab, "raised", **viewer)
        assert (raised["value"], raised["unit"], raised["instrument"], raised["channel"]) == (6, "V", "lamp", "level")
        assert "above 5 V" in raised["why"]
        assert (await lab.post(place, {"who": "Eve"}, **viewer)).status_code == 403
        assert (await alarm_is(lab, "raised", **viewer))["by"] == ""
        wrong = await lab.post("/api/alarms/dim/acknowledge", {}, **operator)
        assert (wrong.status_code, wrong.json()["error"]) == (404, "NoSuchAlarm")
        known = (await lab.post(place, {"who": "Ada"}, **operator)).json()
        assert (known["state"], known["by"], known["raised"]) == ("acknowledged", "Ada (page (127.0.0.1))", 1)


async def test_alarms_go_to_every_page_and_are_acknowledged_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as lab, lab.live() as live:
        await too_bright(lab)
        while (await heard(live, "now"))["now"]["alarms"][0]["state"] != "raised":
            pass
        await live.send(json.dumps({"type": "do", "id": 7, "name": "acknowledge", "target": "bright", "body": {}}))
        done = await heard(live, "done")
        assert (done["id"], done["result"]["state"], done["result"]["by"]) == (7, "acknowledged", "page (127.0.0.1)")
        while (await heard(live, "now"))["now"]["alarms"][0]["state"] != "acknowledged":
            pass


async def test_metrics_are_served_as_text_and_as_openmetrics_to_whoever_may_look(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    async with serving(tmp_path, token=TOKEN, viewer_token=LOOK) as lab:
        assert (await lab.get("/metrics")).status_code == 401
        look = {"Authorization": f"Bearer {LOOK}"}
        plain = await lab.get("/metrics", headers=look)
        prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        strict = await lab.get("/metrics", headers={**look, "Accept": prometheus})
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert strict.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert 'duodaq_lab_info{lab="small"' in plain.text
        assert 'duodaq_alarm_state{alarm="bright",state="normal"} 1.0' in plain.text
        assert strict.text.endswith("# EOF\n")
        assert "/metrics" in (await lab.get("/api/openapi.json", headers=look)).json()["paths"]
