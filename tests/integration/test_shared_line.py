"""PyMeasure's own ESP300 in V2 and duodaq's Esp300 in V4 on one unpaced line: nobody's reply is ever another's.

``make soak`` runs 10,000 exchanges a side; the ordinary run 2,000, of which 700 with nothing beside it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import statistics
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.model import AxisDefinition, Execute, GetParameter, InstrumentDefinition
from duodaq.ports import WireRecord
from duodaq.ports._owner import PortOwner
from duodaq.sim import SimProcess
from duodaq.testing.coexistence import MODES, Bench, Mode, outcome

pytest.importorskip("serial", reason="the serial extra is not installed")
pytest.importorskip("pymeasure", reason="the demo extra is not installed")

pytestmark = [
    pytest.mark.serial,
    pytest.mark.filterwarnings("ignore:It is not known whether:FutureWarning"),
]
judged = pytest.mark.alone("compares waits at the 99th percentile with the machine's own, and prints its figures")

X_MM, Y_MM = 1.25, 3.5
CLIENTS = 2
STAGE = InstrumentDefinition(
    "stage", "v4", "duodaq:Esp300", port="stage", axes=(AxisDefinition("y", 2, "mm", (-10.0, 25.0)),)
)


class Handover:
    """How long this machine, as loaded as it is, takes to hand something to a thread and back: the run's baseline."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self._jobs: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Handover:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _measure(self) -> None:
        while True:
            job: asyncio.Future[None] = self._loop.create_future()
            began_s = monotonic_s()
            self._jobs.put(job)
            await job
            self.took_s.append(monotonic_s() - began_s)
            await pause(0.002)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._loop.call_soon_threadsafe(lambda job=job: None if job.done() else job.set_result(None))

    def at_s(self, percent: int) -> float:
        return statistics.quantiles(self.took_s, n=100)[percent - 1]


class Figures:
    """What the port did: for each lease how long, and for how many exchanges of others, it was waited for.

    The wait may take 3 times the fair share, which is the waiting clients times the median exchange, and on top of it
    what this machine takes for one hand-over to a thread: a V2 driver gives its lease back from its own.
    """

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self.turns: list[int] = []
        self.exchanges_s: list[float] = []
        self._written: dict[int, int] = {}

    def watch_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measure from the moment a lease is asked for until it is granted."""
        ask = PortOwner.ask

        def timed(owner: PortOwner, ticket: Any, timeout_s: float | None, epoch: int | None = None) -> None:
            asked_s, before, settle = monotonic_s(), owner.books.exchanges, ticket.settle

            def settled(refusal: Exception | None) -> None:
                self.waits_s.append(monotonic_s() - asked_s)
                self.turns.append(owner.books.exchanges - before)
                settle(refusal)

            ticket.settle = settled
            ask(owner, ticket, timeout_s, epoch)

        monkeypatch.setattr(PortOwner, "ask", timed)

    def note(self, record: WireRecord) -> None:
        """Take one record of the wire log."""
        if record.direction == ">":
            self._written[record.exchange] = record.t_ns
        elif record.data.endswith(b"\n") and record.exchange in self._written:
            self.exchanges_s.append((record.t_ns - self._written.pop(record.exchange)) / 1e9)

    @property
    def fair_share_s(self) -> float:
        return CLIENTS * statistics.median(self.exchanges_s)

    def wait_s(self, percent: int) -> float:
        return statistics.quantiles(self.waits_s, n=100)[percent - 1]

    def __str__(self) -> str:
        return (
            f"exchange {1e3 * statistics.median(self.exchanges_s):.3f} ms at the median; wait for the lease "
            f"{1e3 * self.wait_s(50):.3f} ms at the median, {1e3 * self.wait_s(99):.3f} ms at p99 = "
            f"{self.wait_s(99) / self.fair_share_s:.2f} x the fair share of {1e3 * self.fair_share_s:.3f} ms, "
            f"at most {max(self.turns)} exchanges of others"
        )


async def both_sides(bench: Bench, controller: SimProcess) -> DualRuntimeManager:
    """The running lab, axis x at 1.25 mm and axis y at 3.5 mm."""
    manager = bench.manager([bench.esp(), STAGE], [bench.serial_port("stage", controller, "esp300")])
    await manager.start()
    await manager.command("esp", Execute("x.define_position", (X_MM,)))
    await manager.command("esp", Execute("y.define_position", (Y_MM,)))
    return manager


async def ask(manager: DualRuntimeManager, instrument: str, name: str, count: int) -> list[float]:
    return [await manager.command(instrument, GetParameter(name)) for _ in range(count)]


async def share(
    mode: Mode, count: int, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None], timed: bool = True
) -> None:
    figures = Figures()
    async with Bench(mode) as bench:
        controller = await bench.simulator("esp300")
        manager = await both_sides(bench, controller)
        before = controller.report()
        figures.watch_waits(monkeypatch)
        unsubscribe = manager.broker.subscribe_log("stage", figures.note)
        began_s = monotonic_s()
        async with Handover() as handover:
            v2_got, v4_got = await asyncio.gather(
                ask(manager, "esp", "x.position", count), ask(manager, "stage", "y.position", count)
            )
        took_s = monotonic_s() - began_s
        unsubscribe()
        after = controller.report()
    crossed = sum(got != X_MM for got in v2_got) + sum(got != Y_MM for got in v4_got)
    asked = [after["produced"][word] - before["produced"].get(word, 0) for word in ("1TP", "2TP")]
    say(
        f"shared line, {mode}: {count} exchanges a side in {took_s:.1f} s; {crossed} crossed replies; "
        f"{after['interleavings']} interleavings; {figures}; "
        f"a bare hand-over to a thread {1e3 * handover.at_s(99):.3f} ms at p99"
    )
    assert crossed == 0
    assert after["interleavings"] == after["misframed"] == 0
    assert asked == [count, count]
    assert len(figures.waits_s) >= 2 * count
    assert max(figures.turns) < CLIENTS
    assert figures.wait_s(99) < 3 * figures.fair_share_s + handover.at_s(99) or not timed


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def aloud(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return aloud


@pytest.mark.parametrize("mode", MODES, ids=str)
async def test_both_sides_share_a_line_without_a_crossed_reply(mode: Mode, monkeypatch) -> None:
    await share(mode, 1_300, monkeypatch, lambda _: None, timed=False)


@judged
@pytest.mark.parametrize("mode", MODES, ids=str)
async def test_neither_side_of_a_line_waits_longer_than_its_share(mode: Mode, monkeypatch, say) -> None:
    await share(mode, 700, monkeypatch, say)


@judged
@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES, ids=str)
async def test_both_sides_share_a_line_for_ten_thousand_exchanges_each(mode: Mode, monkeypatch, say) -> None:
    await share(mode, 10_000, monkeypatch, say)


@pytest.mark.parametrize("mode", MODES, ids=str)
async def test_the_device_sees_it_when_somebody_bypasses_the_broker(mode: Mode) -> None:
    async with Bench(mode) as bench:
        controller = await bench.simulator("esp300")
        manager = await both_sides(bench, controller)
        work = [
            asyncio.ensure_future(outcome(ask(manager, instrument, name, 2_000)))
            for instrument, name in (("esp", "x.position"), ("stage", "y.position"))
        ]
        line = os.open(controller.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        limit = Deadline(20.0)
        try:
            while not limit.passed and not controller.report()["interleavings"]:
                os.write(line, b"3TP\r")
                await pause(0.001)
        finally:
            os.close(line)
        assert controller.report()["interleavings"] > 0
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
