"""What a browser gets of a busy lab, and what the lab pays for it; and that ten slow browsers change neither.

Four curves at 1 kHz and a 512 × 512 camera at 30 frames a second, in a real Chromium: images and plot updates a second,
how old an image is when it is drawn, and the processor time of the server's process beyond what it takes without a
browser. Run it: ``python benchmarks/page_load.py`` (``--quick`` for a correctness run). Without Chromium it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from _harness import Goal, parser, report

from duodaq import clock
from duodaq.app import Lab
from duodaq.model import ChannelInfo, InstrumentDefinition, LabDefinition, RuntimeDefinition, Scalar, WebDefinition
from duodaq.schema import frame_batch, scalar_batch
from duodaq.telemetry import configure_logging
from duodaq.v4.instruments import InstrumentActor, Parameter

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CURVES, RATE_HZ, EVERY_S = 4, 1000, 0.01
FRAMES_S = 30
SLOW, SLOWLY_S = 10, 0.3
DRIVE = """
import asyncio, json, sys
from playwright.async_api import async_playwright
async def main():
    address, seconds, chromium = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.goto(address)
        for _ in range(200):
            if await page.evaluate("globalThis.duodaq && duodaq.camera.images > 5 && duodaq.plots.updates > 5"):
                break
            await page.wait_for_timeout(50)
        print("ready", flush=True)
        figures = "[performance.now(), duodaq.plots.updates, duodaq.camera.images, duodaq.camera.ages.length]"
        while sys.stdin.readline():
            before = await page.evaluate(figures)
            await page.evaluate("duodaq.camera.ages.splice(0)")
            await page.wait_for_timeout(seconds * 1000)
            after = await page.evaluate(figures)
            took = (after[0] - before[0]) / 1000
            ages = await page.evaluate("duodaq.camera.ages")
            plots, images = ((after[i] - before[i]) / took for i in (1, 2))
            print(json.dumps({"plots": plots, "images": images, "ages": ages}), flush=True)
        await browser.close()
asyncio.run(main())
"""


async def _nothing(_: Any) -> float:
    return 0.0


class Source(InstrumentActor):
    """An instrument whose data this benchmark makes."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"level": Parameter(_nothing)}

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """Four curves and a camera."""
        mine = (ChannelInfo("source", f"c{curve}", "V", "scalar", "v4") for curve in range(CURVES))
        return (*mine, ChannelInfo("source", "frames", "counts", "image", "v4"))


async def curves(lab: Lab) -> None:
    """Four curves, in batches of 10 ms."""
    publisher, sent, began = lab.manager.v4_data, 0, clock.monotonic_s()
    while True:
        due = int((clock.monotonic_s() - began) * RATE_HZ)
        t_ns = clock.utc_ns()
        values = np.sin(np.arange(sent, due) / 200)
        for curve in range(CURVES):
            rows = [
                Scalar("source", f"c{curve}", "V", t_ns + i * 10**6, sent + i, float(v) + curve, "v4")
                for i, v in enumerate(values)
            ]
            if rows:
                publisher.publish(scalar_batch(rows))
        sent = due
        await clock.pause(EVERY_S)


async def frames(lab: Lab) -> None:
    """The camera: the same few pictures, in turn."""
    noise = np.random.default_rng(1).integers(100, 4000, (8, 512, 512), dtype=np.uint16)
    publisher, number, began = lab.manager.v4_data, 0, clock.monotonic_s()
    while True:
        facts: dict[str, Any] = {
            "instrument": "source",
            "channel": "frames",
            "sequence": number,
            "frame_number": number,
        }
        publisher.publish(frame_batch(noise[number % 8], t_ns=clock.utc_ns(), **facts))
        number += 1
        await clock.pause(max(0.0, began + number / FRAMES_S - clock.monotonic_s()))


def definition(folder: Path) -> LabDefinition:
    """A lab with one instrument that has no line."""
    inline = RuntimeDefinition("v2", "inline")
    return LabDefinition(
        "load", instruments=(InstrumentDefinition("source", "v4", Source),), v2=inline, directory=folder
    )


@contextlib.asynccontextmanager
async def busy(folder: Path) -> AsyncGenerator[Lab]:
    """The lab and its data, without a page."""
    async with Lab(definition(folder)) as lab:
        tasks = [asyncio.create_task(work(lab)) for work in (curves, frames)]
        try:
            yield lab
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def processor(seconds: float) -> float:
    """The part of a core that this process takes."""
    began, used = time.perf_counter(), time.process_time()
    await clock.pause(seconds)
    return (time.process_time() - used) / (time.perf_counter() - began)


class Browser:
    """A browser on the page, in processes of its own: its work is not the server's."""

    def __init__(self, driver: asyncio.subprocess.Process, seconds: float) -> None:
        assert driver.stdin is not None
        assert driver.stdout is not None
        self._in, self._out, self._driver = driver.stdin, driver.stdout, driver
        self._seconds = seconds

    @classmethod
    async def open(cls, page: Any, seconds: float) -> Browser:
        """One that shows the page and has drawn something."""
        command = [sys.executable, "-c", DRIVE, page.address, str(seconds), str(CHROMIUM)]
        pipe = asyncio.subprocess.PIPE
        browser = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe), seconds)
        assert (await browser._out.readline()).strip() == b"ready"
        return browser

    async def watch(self) -> tuple[dict[str, Any], float]:
        """What it saw, and what this process took meanwhile."""
        self._in.write(b"\n")
        took = await processor(self._seconds)
        return json.loads(await self._out.readline()), took

    async def close(self) -> None:
        """End it."""
        self._in.close()
        await self._driver.wait()


@contextlib.asynccontextmanager
async def slow_browsers(page: Any) -> AsyncGenerator[None]:
    """Ten that want everything: five take nothing at all of it, and five a message in 0.3 s."""
    from websockets.asyncio.client import connect

    place = page.address.replace("http", "ws") + "api/live"
    async with contextlib.AsyncExitStack() as stack:
        for number in range(SLOW):
            live = await stack.enter_async_context(
                connect(place, max_queue=1, max_size=None, proxy=None, ping_interval=None, close_timeout=0.1)
            )
            names = [f"source.c{curve}" for curve in range(CURVES)]
            await live.send(json.dumps({"type": "streams", "names": names}))
            await live.send(json.dumps({"type": "image", "stream": "source.frames"}))
            await live.send(json.dumps({"type": "credit", "rows": 64, "images": 64}))
            if number % 2:
                taking = asyncio.create_task(take_slowly(live))
                stack.callback(taking.cancel)
        yield


async def take_slowly(live: Any) -> None:
    """A message in 0.3 s, for which as much is asked again."""
    while True:
        await clock.pause(SLOWLY_S)
        await live.recv()
        await live.send(json.dumps({"type": "credit", "rows": 1, "images": 1}))


async def recorded(lab: Lab, folder: Path, seconds: float) -> tuple[int, bool]:
    """How many rows and frames a recording of so long took, and whether all books balance without a loss."""
    await lab.start_recording(folder)
    await clock.pause(seconds)
    rows = [row for row in lab.manager.v4_data.ledger().rows() if row.subscriber == "recorder"]
    sound = lab.manager.v4_data.ledger().balanced and sum(row.lost for row in rows) == 0
    summary = await lab.stop_recording()
    return sum(summary.files.values()), sound and summary.complete


async def measured(seconds: float) -> list[Goal]:
    """All figures."""
    from duodaq.web import PageServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with busy(folder) as lab:
            alone = await processor(seconds / 2)
            rows_alone, sound_alone = await recorded(lab, folder / "alone", seconds / 2)
            async with PageServer(lab, WebDefinition(port=0)) as page:
                unwatched = await processor(seconds / 2)
                browser = await Browser.open(page, seconds)
                try:
                    found, took = await browser.watch()
                    async with slow_browsers(page):
                        with_slow, took_slow = await browser.watch()
                        rows_slow, sound_slow = await recorded(lab, folder / "slow", seconds / 2)
                finally:
                    await browser.close()
    assert sound_alone
    assert sound_slow
    age, age_slow = (float(np.median(one["ages"])) for one in (found, with_slow))
    return [
        Goal("images a second, drawn", found["images"], "≥", 25, "/s"),
        Goal("plot updates a second", found["plots"], "≥", 15, "/s"),
        Goal("age of an image when drawn, median", age, "≤", 50, "ms"),
        Goal("server, beside the lab's own work", 100 * (took - alone), "≤", 15, "%"),
        Goal("server without a browser", 100 * (unwatched - alone), unit="%"),
        Goal("ten slow browsers beside: images a second", with_slow["images"], "≥", 25, "/s"),
        Goal("ten slow browsers beside: age, median", age_slow, "≤", 50, "ms"),
        Goal("ten slow browsers beside: server", 100 * (took_slow - alone), unit="%"),
        Goal("rows and frames recorded beside them, to without", rows_slow / rows_alone, "≥", 0.98),
    ]


def main() -> None:
    """Measure, and print."""
    quick = parser(__doc__).parse_args().quick
    if CHROMIUM is None:
        print("There is no Chromium here: nothing is measured.")
        return
    configure_logging("ERROR")
    report(asyncio.run(measured(1.0 if quick else 10.0)), quick=quick)


if __name__ == "__main__":
    main()
