"""Many at once: throughput, contention for one line, and a shutdown in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from typing import Any

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, PollDefinition, SetParameter, StartAcquisition, StopAcquisition
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._contest import Contest, Victim, asking_actor, asking_class, victim_actor
from duodaq.testing.coexistence._office import TRACE_BYTES, TRACES, Post, office_actor, office_class
from duodaq.testing.coexistence._proof import proves

# ── test_resource_contention ────────────────────────────────────────────────────────────────────────────────────────


async def test_resource_contention(bench: Bench) -> None:
    """Both sides on one line: no interleaving, own replies, fair waits, nobody keeps it who died or sleeps."""
    stage_sim = await bench.simulator("esp300")
    contest, victim = Contest(), Victim()
    manager = bench.manager(
        [
            bench.own_class("asker", asking_class(contest), port="stage", options={"hold_max_s": {"ask": 0.0}}),
            *(bench.own_actor(name, asking_actor(contest, name), port="stage") for name in contest.actors),
            bench.own_actor("victim", victim_actor(victim), port="stage"),
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


async def test_concurrent_message_throughput(bench: Bench) -> None:
    """Many senders on both sides: exact counts, the order of each sender, latency percentiles, bounded memory."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    v2_got, v4_got = Post(), Post()
    traces = PollDefinition("trace", 0.001, "V", call="trace")
    manager = bench.manager(
        [
            bench.own_class("v2 office", office_class(v2_got), "meter", polls=(traces,), options={"acquire": False}),
            bench.own_actor("v4 office", office_actor(v4_got), "stage"),
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
    flooding = asyncio.ensure_future(outcome(manager.command("v4 office", Execute("flood", (TRACES,)), 20.0)))
    await outcome(manager.command("v2 office", StartAcquisition()))
    await until(lambda: v2_got.traces >= TRACES and flooding.done(), 20.0, 0.02)
    await outcome(manager.command("v2 office", StopAcquisition()))
    grown = _resident_bytes() - before
    produced = (v2_got.traces + v4_got.traces) * TRACE_BYTES
    for reader in idle:
        reader.close()
    facts = {"grown_mb": grown / 1e6, "produced_mb": produced / 1e6}
    proves("bounded memory", produced == 2 * TRACES * TRACE_BYTES, "both sides produced", **facts)
    proves("bounded memory", grown < produced / 2, "the process kept to its queues' bounds", **facts)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
