"""One browser, over the demonstration's instruments, for all tests of the page: it is slow to begin."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from duodaq import clock

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALARM = """
[alarms.close]
channel = "stage.x.position"
unit = "mm"
low = 3.0
note = "mind the lens"
"""
SPECTROMETER = """
[instruments.spectrometer]
runtime = "v2"
driver = "./spectrometer.py:Spectrometer"
passive = ["spectrum", "averages"]
settings = { averages = 4, gain = 1.5 }
limits = { averages = [1, 100] }
axes.grating = { number = 1, unit = "nm" }
poll.lamp = { call = "spectrum", every = "200 ms" }
"""
DRIVER = """
class In(str):
    def __format__(self, how):
        return str(self)


class Quantity:
    def __init__(self, magnitude, unit):
        self.magnitude, self.units = magnitude, In(unit)


class Spectrometer:
    def __init__(self):
        self._averages, self._gain = 4, 1.5

    @property
    def averages(self):
        return self._averages

    @averages.setter
    def averages(self, n):
        self._averages = int(n)

    @property
    def gain(self):
        return self._gain

    @gain.setter
    def gain(self, gain):
        self._gain = float(gain)

    def move(self, axis, position):
        pass

    def calibrate(self, lamp_nm):
        return lamp_nm

    def spectrum(self):
        return Quantity([820.0 - n for n in range(40)], "nm"), Quantity([float(n * n) for n in range(40)], "mW")
"""
HELLO = "document.querySelectorAll('.instrument').length === 6"


class BrowserThread:
    """A loop in a thread of its own for Playwright: pytest's own loops are not to be beside one that runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="browser")
        self._thread.start()

    def __enter__(self) -> BrowserThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


class Blocking:
    """Something of Playwright's, whose methods wait for their results."""

    def __init__(self, thread: BrowserThread, asked: Any) -> None:
        self._thread = thread
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._asked, name)
        if not callable(found):
            return self._wrapped(found)

        def call(*args: Any, **kwargs: Any) -> Any:
            async def work() -> Any:
                answer = found(*args, **kwargs)
                return await answer if inspect.isawaitable(answer) else answer

            return self._wrapped(self._thread.run(work()))

        return call

    def _wrapped(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self._wrapped(one) for one in answer]
        ours = type(answer).__module__.startswith("playwright")
        return Blocking(self._thread, answer) if ours else answer


class Page:
    """A browser's page on a lab at simulators, and what it did."""

    def __init__(self, lab: Any, bench: Any, browser: Any, port: int = 0) -> None:
        self.lab = lab
        self.bench = bench
        self.server = self._serve(port)
        self.address = self.server.address
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_page(viewport={"width": 1440, "height": 900})
        self.tab.set_default_timeout(10_000)
        self.tab.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("websocket", lambda socket: self.requests.append(socket.url))
        self.tab.goto(self.address)
        self.until(lambda: self.js(HELLO))

    def restart(self) -> None:
        """End the server, see what the page says to that, and start another one at the same place."""
        app = importlib.import_module("duodaq.app")
        app.in_lab(self.lab, lambda _: self.server.aclose())
        self.tab.wait_for_selector("#banner-lost:not([hidden])")
        self.server = self._serve(int(self.address.rsplit(":", 1)[1].strip("/")))

    def close(self) -> None:
        self.tab.close()
        importlib.import_module("duodaq.app").in_lab(self.lab, lambda _: self.server.aclose())

    def _serve(self, port: int) -> Any:
        app = importlib.import_module("duodaq.app")
        web = importlib.import_module("duodaq.web")
        model = importlib.import_module("duodaq.model")

        async def itself(lab: Any) -> Any:
            return lab

        server = web.PageServer(app.in_lab(self.lab, itself), model.WebDefinition(port=port))
        app.in_lab(self.lab, lambda _: server.start())
        return server

    def js(self, expression: str) -> Any:
        return self.tab.evaluate(expression)

    def until(self, condition: Callable[[], Any], limit_s: float = 15.0) -> Any:
        deadline = clock.Deadline(limit_s)
        while not (found := condition()):
            assert not deadline.passed, "it did not come to that"
            self.tab.wait_for_timeout(20)
        return found

    def panel(self, instrument: str) -> None:
        self.tab.click(f"[data-instrument={instrument}]")
        self.tab.wait_for_selector("#panel:not([hidden])")

    def position_mm(self) -> float:
        return self.bench.table.state().positions[1]

    def is_moving(self) -> bool:
        return any(self.bench.table.state().moving.values())

    def move_to(self, position: str) -> None:
        self.js("document.getElementById('toasts').replaceChildren()")
        self.panel("stage")
        self.tab.fill("[data-target=x]", position)
        self.tab.press("[data-target=x]", "Enter")

    def can(self, button: str) -> bool:
        """Whether a button of the panel can be pressed."""
        return self.tab.is_enabled(f"#panel button:text-is('{button}'), #panel button[aria-label='{button}']")

    def toast(self, words: str) -> str:
        return self.tab.wait_for_selector(f".toast:has-text('{words}')").inner_text()


@pytest.fixture(scope="package")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path")
    playwright = pytest.importorskip("playwright.async_api")
    for package in ("fastapi", "pymeasure", "pyvcam", "serial", "uvicorn"):
        pytest.importorskip(package)
    set_up = importlib.import_module("duodaq.cli.demo._table").set_up
    app = importlib.import_module("duodaq.app")
    with ExitStack() as stack:
        bench = stack.enter_context(set_up(tmp_path_factory.mktemp("page"), "optics", 1))
        bench.lab_file.write_text(bench.lab_file.read_text() + ALARM + SPECTROMETER)
        (bench.lab_file.parent / "spectrometer.py").write_text(DRIVER)
        lab = stack.enter_context(app.open_lab(bench.lab_file))
        lab.shutter.call("open")
        lab.camera.start(roi=(768, 768, 512, 512), binning=(2, 2), exposure_s=0.1)  # few to draw
        lab.stage.start(rate_hz=20)
        thread = stack.enter_context(BrowserThread())
        driver = Blocking(thread, playwright.async_playwright()).start()
        stack.callback(driver.stop)
        chromium = driver.chromium
        browser = chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        stack.callback(browser.close)
        shown = Page(lab, bench, browser)
        stack.callback(shown.close)
        shown.until(lambda: shown.js("duodaq.camera.images > 0"))
        shown.js("fetch('/api/runs').then(a => a.text())")  # the thread that reads files is the server's from now on
        yield shown
