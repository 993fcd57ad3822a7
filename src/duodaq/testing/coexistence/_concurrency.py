"""Many at once: throughput, contention for one line, and a shutdown in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import threading
from typing import Any

import msgspec
import numpy as np

from duodaq.clock import Deadline, block, monotonic_s, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, PollDefinition, SetParameter, StartAcquisition, StopAcquisition, Vector
from duodaq.schema import vector_batch
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._proof import proves
from duodaq.v4 import ActorRef, handler
from duodaq.v4.instruments import InstrumentActor, Parameter

# ── test_resource_contention ────────────────────────────────────────────────────────────────────────────────────────


async def test_resource_contention(bench: Bench) -> None:
    """Both sides on one line: no interleaving, own replies, fair waits, nobody keeps it who died or sleeps."""
    stage_sim = await bench.simulator("esp300")
    contest, victim = Contest(), Victim()
    manager = bench.manager(
        [
            bench.own_class("asker", _asking_class(contest), port="stage", options={"hold_max_s": {"ask": 0.0}}),
            *(bench.own_actor(name, _asking_actor(contest, name), port="stage") for name in contest.actors),
            bench.own_actor("victim", _victim_actor(victim), port="stage"),
        ],
        [bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    await _compete(manager, contest, 150)
    _check_contest(contest, stage_sim.report())
    await _check_sleeping_holder(manager, contest)
    await _check_killed_holder(manager, contest, victim, stage_sim)
    clean = stage_sim.report()["interleavings"]
    proves("no interleaving", clean == 0, "the device saw whole exchanges only", interleavings=clean)
    await _check_bypass(manager, contest, stage_sim)


class Contest:
    """Who asked what and got which answer, in order; and how many others were served meanwhile."""

    actors = ("asker a", "asker b", "asker c")
    axis = {"asker": 1, "asker a": 2, "asker b": 3, "asker c": 2}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.answers: dict[str, set[bytes]] = {name: set() for name in self.axis}
        self.overtaken: dict[str, list[int]] = {name: [] for name in self.axis}
        self.ended = threading.Event()
        self.sleeping = threading.Event()
        self.wake = threading.Event()

    def query(self, name: str) -> bytes:
        """A question that each axis answers in its own way."""
        return b"%dID?\r" % self.axis[name]

    def served(self, name: str, before: int, answer: bytes) -> None:
        self.overtaken[name].append(len(self.turns) - before)
        self.turns.append(name)
        self.answers[name].add(answer.strip())


class Ask(msgspec.Struct, frozen=True):
    """Ask the device `count` times, one after the other, or until the contest has ended."""

    count: int


def _asking_class(contest: Contest) -> type:
    class Asker:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def ask(self, count: int) -> bytes:
            answer = b""
            for _ in range(count):
                if contest.ended.is_set():
                    break
                before = len(contest.turns)
                self.serial.write(contest.query("asker"))
                answer = bytes(self.serial.readline())
                contest.served("asker", before, answer)
            return answer.strip()

        def sleep_on_it(self) -> None:
            """Take the line, and fall asleep."""
            self.serial.write(contest.query("asker"))
            self.serial.readline()
            contest.sleeping.set()
            block(2.0, contest.wake)

    return Asker


def _asking_actor(contest: Contest, name: str) -> type[InstrumentActor]:
    class Asker(InstrumentActor):
        operations = {"ask": Ask}  # noqa: RUF012 - as the base class has it

        @handler(Ask)
        async def ask(self, message: Ask) -> bytes:
            answer = b""
            for _ in range(message.count):
                if contest.ended.is_set():
                    break
                before = len(contest.turns)
                answer = await self.port.exchange(contest.query(name), holder=self.context.holder)
                contest.served(name, before, answer)
            return answer.strip()

    return Asker


async def _compete(manager: DualRuntimeManager, contest: Contest, count: int) -> None:
    others = [
        asyncio.ensure_future(outcome(manager.command(name, Execute("ask", (100 * count,)), 20.0)))
        for name in contest.actors
    ]
    await outcome(manager.command("asker", Execute("ask", (count,)), 10.0))
    await until(lambda: len(contest.turns) > 4 * count, 0.2)
    contest.ended.set()
    await asyncio.wait(others, timeout=5.0)
    contest.ended.clear()


def _check_contest(contest: Contest, device: dict[str, Any]) -> None:
    asked = {name: len(served) for name, served in contest.overtaken.items()}
    interleavings = device["interleavings"]
    proves("no interleaving", interleavings == 0, "the device saw whole exchanges only", interleavings=interleavings)
    for axis in (1, 2, 3):
        counted = device["produced"].get(f"{axis}ID", 0)
        own = sum(asked[name] for name, number in contest.axis.items() if number == axis)
        proves("exact counts", counted == own >= 20, "the device's count", axis=axis, device=counted, asked=asked)
    answers = {name: contest.answers[name] for name in contest.axis}
    alike = all(len(found) == 1 for found in answers.values()) and answers["asker a"] == answers["asker c"]
    different = len({next(iter(found)) for found in answers.values() if found}) == 3
    proves("own replies", alike and different, "everybody got the answer to his own question", answers=answers)
    others = len(contest.axis) - 1
    for name, overtaken in contest.overtaken.items():
        typical, most = statistics.median(overtaken), 5 * others
        proves(
            "fair waits", typical <= most, "served in turn", name=name, overtaken=typical, others=others, asked=asked
        )


async def _check_sleeping_holder(manager: DualRuntimeManager, contest: Contest) -> None:
    """A V2 call that took the line and sleeps keeps it for its 200 ms and no longer."""
    sleeper = asyncio.ensure_future(outcome(manager.command("asker", Execute("sleep_on_it"), 5.0)))
    await until(contest.sleeping.is_set, 3.0, 0.001)
    begun_s = monotonic_s()
    answer = await outcome(manager.command("asker a", Execute("ask", (1,)), 4.0))
    took_s = monotonic_s() - begun_s
    still_asleep = not sleeper.done()
    contest.wake.set()
    await asyncio.wait({sleeper}, timeout=3.0)
    right = answer in contest.answers["asker a"]
    proves(
        "sleeping holder", still_asleep and right and took_s < 1.0, "V4 was served meanwhile", took_s=took_s, got=answer
    )


class Victim:
    """What the test knows of an actor that is going to be killed while it holds the line."""

    def __init__(self) -> None:
        self.ref: ActorRef | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.holds = threading.Event()
        self.go = threading.Event()

    async def kill(self) -> None:
        if self.ref is None or self.loop is None:
            return
        killing = asyncio.run_coroutine_threadsafe(self.ref.kill(), self.loop)
        await asyncio.wait({asyncio.wrap_future(killing)}, timeout=3.0)


class Seize(msgspec.Struct, frozen=True):
    """Take the line and never give it back."""


def _victim_actor(victim: Victim) -> type[InstrumentActor]:
    class Doomed(InstrumentActor):
        operations = {"seize": Seize}  # noqa: RUF012 - as the base class has it

        @handler(Seize)
        async def seize(self, message: Seize) -> None:
            victim.ref, victim.loop = self.ref, asyncio.get_running_loop()
            async with self.port.lease(self.context.holder) as lease:
                victim.holds.set()
                while not victim.go.is_set():
                    await pause(0.005)
                await lease.exchange(b"3SN?\r", timeout_s=30.0)

    return Doomed


async def _check_killed_holder(
    manager: DualRuntimeManager, contest: Contest, victim: Victim, stage_sim: SimProcess
) -> None:
    """The holder is killed with a question on the wire: the line goes on, and the late answer answers nobody."""
    known = contest.answers["asker"].copy()
    seizing = asyncio.ensure_future(outcome(manager.command("victim", Execute("seize"), 20.0)))
    await until(victim.holds.is_set, 3.0)
    await asyncio.to_thread(stage_sim.fault, stall=True)
    victim.go.set()
    await until(lambda: stage_sim.report()["produced"].get("3SN", 0) > 0, 3.0, 0.02)
    await victim.kill()
    begun_s = monotonic_s()
    asking = asyncio.ensure_future(outcome(manager.command("asker", Execute("ask", (3,)), 10.0)))
    await pause(0.1)
    await asyncio.to_thread(stage_sim.fault)
    answer = await asking
    took_s = monotonic_s() - begun_s
    await asyncio.wait({seizing}, timeout=2.0)
    strange = [repr(found) for found in contest.answers["asker"] - known]
    proves("no late reply", not strange, "V2 got no answer that was meant for the dead", got=strange)
    served = answer in known and took_s < 4.0
    proves("killed holder", served and victim.holds.is_set(), "V2 was served", took_s=took_s, got=answer)


async def _check_bypass(manager: DualRuntimeManager, contest: Contest, stage_sim: SimProcess) -> None:
    """The device's own detector works: whoever opens the line beside the broker is seen by it."""
    working = [
        asyncio.ensure_future(outcome(manager.command(name, Execute("ask", (100_000,)), 2.0)))
        for name in ("asker", "asker a")
    ]
    line = os.open(stage_sim.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    limit = Deadline(2.0)
    try:
        while not limit.passed and stage_sim.report()["interleavings"] == 0:
            for _ in range(20):
                with contextlib.suppress(BlockingIOError):
                    os.write(line, b"2VA?\r")
                await pause(0.001)
    finally:
        os.close(line)
        contest.ended.set()
    seen = stage_sim.report()["interleavings"]
    await asyncio.wait(working, timeout=3.0)
    proves(
        "bypass is seen", seen > 0, "a second opener of the line interleaves, and the device tells", interleavings=seen
    )


# ── test_concurrent_message_throughput ──────────────────────────────────────────────────────────────────────────────

SENDERS, MESSAGES, WINDOW = 8, 40, 6
_SLACK_S = 0.25
_TRACES, _TRACE_VALUES = 200, 32768
_TRACE_BYTES = 8 * _TRACE_VALUES


async def test_concurrent_message_throughput(bench: Bench) -> None:
    """Many senders on both sides: exact counts, the order of each sender, latency percentiles, bounded memory."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    v2_got, v4_got = Post(), Post()
    traces = PollDefinition("trace", 0.001, "V", call="trace")
    manager = bench.manager(
        [
            bench.own_class("v2 office", _office_class(v2_got), "meter", polls=(traces,), options={"acquire": False}),
            bench.own_actor("v4 office", _office_actor(v4_got), "stage"),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    before = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    await asyncio.gather(_send_all(manager, "v2 office", v2_got), _send_all(manager, "v4 office", v4_got))
    after = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    for side, post, exchanges in (("v2", v2_got, after[0] - before[0]), ("v4", v4_got, after[1] - before[1])):
        _check_post(side, post, exchanges)
    await _check_memory(manager, v2_got, v4_got)


class Post:
    """What one side received, in order, and what its senders were told after how long."""

    def __init__(self) -> None:
        self.received: list[tuple[int, int]] = []
        self.answered: list[tuple[tuple[int, int], Any]] = []
        self.latencies_s: list[float] = []
        self.took_s = 0.0
        self.traces = 0

    def percentile_s(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1]


def _office_class(got: Post) -> type:
    class Office:
        """Takes messages; for each it asks its device once."""

        def __init__(self, serial: Any) -> None:
            self.serial = serial
            self._last: Any = None

        @property
        def message(self) -> Any:
            return self._last

        @message.setter
        def message(self, message: tuple[int, int]) -> None:
            self.serial.write(b"D?\n")
            self.serial.readline()
            got.received.append(message)
            self._last = message

        def trace(self) -> Any:
            if got.traces < _TRACES:
                got.traces += 1
            return np.full(_TRACE_VALUES, float(got.traces))

    return Office


class Flood(msgspec.Struct, frozen=True):
    """Publish `count` traces."""

    count: int


def _office_actor(got: Post) -> type[InstrumentActor]:
    async def nothing(actor: InstrumentActor) -> None:
        return None

    async def take(actor: InstrumentActor, message: tuple[int, int]) -> Any:
        await actor.port.exchange(b"1TP\r", holder=actor.context.holder)
        got.received.append(message)
        return message

    class Office(InstrumentActor):
        """Takes messages; for each it asks its device once."""

        parameters = {"message": Parameter(nothing, take)}  # noqa: RUF012 - as the base class has it
        operations = {"flood": Flood}  # noqa: RUF012 - as the base class has it

        @handler(Flood)
        async def flood(self, message: Flood) -> None:
            for number in range(message.count):
                values = np.full(_TRACE_VALUES, float(number))
                row = Vector(self.definition.id, "trace", "V", utc_ns(), number, values, "v4")
                await self.streams.deliver("trace", vector_batch([row]))
                got.traces += 1
                await pause(0)

    return Office


async def _send_all(manager: DualRuntimeManager, office: str, got: Post) -> None:
    begun_s = monotonic_s()
    await asyncio.gather(*(_send(manager, office, sender, got) for sender in range(SENDERS)))
    got.took_s = monotonic_s() - begun_s


async def _send(manager: DualRuntimeManager, office: str, sender: int, got: Post) -> None:
    """One sender: its messages in order, `WINDOW` of them under way at once."""
    room = asyncio.Semaphore(WINDOW)

    async def one(message: tuple[int, int]) -> None:
        sent_s = monotonic_s()
        try:
            answer = await outcome(manager.command(office, SetParameter("message", message), 20.0))
        finally:
            room.release()
        got.latencies_s.append(monotonic_s() - sent_s)
        got.answered.append((message, answer))

    under_way: list[asyncio.Task[None]] = []
    for number in range(MESSAGES):
        await room.acquire()
        under_way.append(asyncio.ensure_future(one((sender, number))))
    await asyncio.wait(under_way, timeout=30.0)


def _check_post(side: str, got: Post, exchanges: int) -> None:
    total = SENDERS * MESSAGES
    counts = len(got.received), len(set(got.received)), exchanges
    proves("exact counts", counts == (total,) * 3, f"{side}: each once, by its device's count too", counts=counts)
    wrong = [(message, answer) for message, answer in got.answered if answer != message]
    proves("own replies", not wrong and len(got.answered) == total, f"{side}: to each sender his own", wrong=wrong[:3])
    for sender in range(SENDERS):
        numbers = [number for who, number in got.received if who == sender]
        proves(
            "order", numbers == list(range(MESSAGES)), f"{side}: in the order of sending", sender=sender, got=numbers
        )
    fair_share_s = SENDERS * WINDOW * got.took_s / total
    p50_s, p99_s = got.percentile_s(50), got.percentile_s(99)
    bounded = p99_s <= 3 * fair_share_s + _SLACK_S
    proves("latency", bounded, f"{side}: nobody is forgotten", p50_s=p50_s, p99_s=p99_s, fair_share_s=fair_share_s)


async def _check_memory(manager: DualRuntimeManager, v2_got: Post, v4_got: Post) -> None:
    """Traces for readers who never read: the process grows by what these queues may hold, not by what was produced."""
    idle = [
        manager.v2_data.subscribe("idle reader of v2", capacity=8, accepts=lambda m: m.channel == "trace"),
        manager.v4_data.subscribe("idle reader of v4", capacity=8, streams=["v4 office.trace"]),
    ]
    before = _resident_bytes()
    flooding = asyncio.ensure_future(outcome(manager.command("v4 office", Execute("flood", (_TRACES,)), 20.0)))
    await outcome(manager.command("v2 office", StartAcquisition()))
    await until(lambda: v2_got.traces >= _TRACES and flooding.done(), 20.0, 0.02)
    await outcome(manager.command("v2 office", StopAcquisition()))
    grown = _resident_bytes() - before
    produced = (v2_got.traces + v4_got.traces) * _TRACE_BYTES
    for reader in idle:
        reader.close()
    facts = {"grown_mb": grown / 1e6, "produced_mb": produced / 1e6}
    proves("bounded memory", produced == 2 * _TRACES * _TRACE_BYTES, "both sides produced", **facts)
    proves("bounded memory", grown < produced / 2, "the process kept to its queues' bounds", **facts)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
