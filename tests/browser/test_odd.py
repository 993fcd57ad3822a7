"""What a page does when the lab falls silent, when people type what is no number, and when they press twice."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from duodaq.clock import monotonic_s

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a browser draws on all of the machine"),
]
IDLE = pytest.mark.leaks_fd("the browser's connection for requests, which the server closes when it was idle for 5 s")
HELLO = "document.querySelectorAll('.instrument').length === 6"
LOOK_ONLY = "Your token lets you look only."
SENT = """
() => {
  globalThis.sent = [];
  globalThis.send ??= WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    const { type, name, body } = JSON.parse(data);
    if (type === "do") sent.push([name, body.kind ?? "", body.args ?? body.value ?? null]);
    return send.call(this, data);
  };
}
"""


class Line:
    """A line to a server that can stand still: connected, and silent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._flows = asyncio.Event()
        self._pumps: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def stand_still(self) -> None:
        self._flows.clear()

    async def flow(self) -> None:
        self._flows.set()

    async def close(self) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._to)
        self._pumps |= {asyncio.create_task(self._pump(*ends)) for ends in ((reader, ours), (theirs, writer))}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # whoever it was for is gone
        finally:
            sink.transport.abort()
            with contextlib.suppress(OSError):
                await sink.wait_closed()


@pytest.fixture
def latched(page: Any) -> Iterator[Any]:
    page.lab.stop_all()
    yield page
    page.lab.reset_stop("a test")
    page.lab.shutter.call("open")
    page.lab.camera.start(roi=(768, 768, 512, 512), binning=(2, 2), exposure_s=0.1)


@IDLE
def test_a_connection_that_says_nothing_for_6_s_is_called_lost_and_heals_when_it_speaks_again(page: Any) -> None:
    run = page.tab._thread.run
    line = Line(int(page.address.rsplit(":", 1)[1].strip("/")))
    tab = page.tab.context.browser.new_page()
    try:
        tab.goto(f"http://127.0.0.1:{run(line.open())}/")
        page.until(lambda: tab.evaluate(HELLO))
        tab.click("[data-instrument=stage]")
        run(line.stand_still())
        began_s = monotonic_s()
        tab.wait_for_selector("#banner-lost:not([hidden])", timeout=15_000)
        assert monotonic_s() - began_s > 4.5, "a lab that is slow is not lost"
        assert tab.inner_text("#banner-lost").startswith("The connection to the lab is lost since ")
        assert "What you see is old" in tab.inner_text("#banner-lost")
        assert tab.inner_text("#lab-line") == "not connected"
        assert tab.evaluate("getComputedStyle(document.querySelector('main')).opacity") == "0.55"
        tab.click("#panel button:text-is('Home')")
        tab.wait_for_selector(".toast:has-text('There is no connection to the lab. Nothing was sent.')")
        assert not page.is_moving()
        run(line.flow())
        tab.wait_for_selector("#banner-lost", state="hidden", timeout=15_000)
        page.until(lambda: tab.inner_text("#lab-line").startswith("running"))
    finally:
        tab.close()
        run(line.close())


@pytest.mark.parametrize("typed", ["NaN", "1e400", "", "-", "1,5"])
def test_what_is_no_number_moves_nothing_and_sets_nothing(page: Any, typed: str) -> None:
    page.js("document.getElementById('toasts').replaceChildren()")
    page.tab.evaluate(SENT)
    before = page.position_mm()
    for instrument, field in (("stage", "[data-target=x]"), ("spectrometer", "[data-setting=gain]")):
        page.panel(instrument)
        page.tab.click(field)
        page.tab.press(field, "Control+a")
        page.tab.press(field, "Delete")
        page.tab.type(field, typed)
        page.tab.press(field, "Enter")
    page.tab.wait_for_timeout(150)
    assert page.js("sent") == []
    assert page.position_mm() == before
    assert page.lab.spectrometer.get("gain") == 1.5


@IDLE
@pytest.mark.parametrize(("name", "typed"), [("from", "1,5"), ("to", "1e400"), ("settle", "0,5")])
def test_a_scan_begins_with_numbers_alone(page: Any, name: str, typed: str) -> None:
    page.tab.click("[data-view=scans]")
    page.tab.click("#view-scans summary")
    for field, value in {"from": "1", "to": "2", "settle": "0"}.items():
        page.tab.fill(f"#view-scans [aria-label={field}]", value)
    page.tab.evaluate(SENT)
    page.tab.fill(f"#view-scans [aria-label={name}]", "")
    page.tab.type(f"#view-scans [aria-label={name}]", typed)
    page.tab.click("#view-scans button[type=submit]")
    page.tab.wait_for_timeout(150)
    assert page.js("sent") == []
    page.tab.fill(f"#view-scans [aria-label={name}]", "0")
    page.tab.click("#view-scans summary")
    page.tab.click("[data-view=live]")


@IDLE
def test_record_pressed_twice_begins_one_recording_and_ends_it_once(page: Any) -> None:
    page.tab.evaluate(SENT)
    page.js("for (const n of [1, 2]) document.getElementById('record').click()")
    page.tab.wait_for_selector("#record.recording:enabled")
    assert [name for name, *_ in page.js("sent")] == ["record_start"]
    page.js("for (const n of [1, 2]) document.getElementById('record').click()")
    assert "complete" in page.toast("Recorded")
    page.tab.wait_for_selector("#record:not(.recording)")
    assert [name for name, *_ in page.js("sent")] == ["record_start", "record_stop"]


@IDLE
def test_who_may_only_look_has_no_record_and_cannot_press_what_changes_something(page: Any) -> None:
    app, web = importlib.import_module("duodaq.app"), importlib.import_module("duodaq.web")
    model = importlib.import_module("duodaq.model")

    async def itself(lab: Any) -> Any:
        return lab

    tokens = {"token": "o" * 20, "viewer_token": "v" * 20}
    server = web.PageServer(app.in_lab(page.lab, itself), model.WebDefinition(port=0, **tokens))
    app.in_lab(page.lab, lambda _: server.start())
    tab = page.tab.context.browser.new_page()
    try:
        tab.goto(f"{server.address.rstrip('/')}/#token={tokens['viewer_token']}")
        page.until(lambda: tab.evaluate(HELLO))
        page.until(lambda: tab.inner_text("#lab-line").endswith("look only"))
        assert not tab.is_visible("#record")
        assert not tab.is_enabled("#stop-all")
        assert tab.get_attribute("#stop-all", "title") == LOOK_ONLY
        tab.click("[data-instrument=stage]")
        buttons = "[...document.querySelectorAll('#panel button:not(.close)')].filter((b) => b.checkVisibility())"
        page.until(lambda: tab.evaluate(f"{buttons}.length > 5"))
        tab.wait_for_timeout(500)
        assert tab.evaluate(f"{buttons}.filter((b) => !b.disabled || b.title !== '{LOOK_ONLY}').length") == 0
        refused = tab.evaluate("import('/link.js').then((l) => l.act('record_start')).catch((e) => e.message)")
        assert refused == "this token lets you look, and change nothing"
        assert not page.lab.status()["recording"]
    finally:
        tab.close()
        app.in_lab(page.lab, lambda _: server.aclose())


def test_an_axis_that_a_stop_holds_says_why_at_each_of_its_buttons(latched: Any) -> None:
    page = latched
    page.panel("stage")
    held = "[...document.querySelectorAll('#panel .axis button')].filter((b) => b.disabled)"
    page.until(lambda: page.js(f"{held}.length") == 4)
    assert page.js(f"[...new Set({held}.map((b) => b.title))]") == ["Stopped: refused until the reset."]
    assert page.tab.inner_text("#panel .axis .held") == "Stopped: refused until the reset."
