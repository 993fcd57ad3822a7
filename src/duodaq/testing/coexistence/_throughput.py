"""Many senders at once: one of the twelve."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from duodaq.clock import monotonic_s
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, PollDefinition, SetParameter, StartAcquisition, StopAcquisition
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._figures import Figures
from duodaq.testing.coexistence._office import TRACE_BYTES, TRACES, Office, OfficeActor, Post
from duodaq.testing.coexistence._proof import proves

SENDERS, MESSAGES, WINDOW = 8, 40, 6
_SLACK_S = 0.25
LINKED = 4
"""How many times as many traces are made where they cross links, which may hold some too."""

RINGS_BYTES = 64 * 2**20
"""What the rings of two workers, where there are any, may come to: they are a bound, and counted once."""


async def test_concurrent_message_throughput(bench: Bench) -> None:
    """Many senders on both sides: exact counts, the order of each sender, latency percentiles, bounded memory."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    most = TRACES * (LINKED if "process" in (bench.mode.v2, bench.mode.v4) else 1)
    v2_got, v4_got = (Post(bench.evidence(name), most) for name in ("v2 office", "v4 office"))
    traces = PollDefinition("trace", 0.001, "V", call="trace")
    manager = bench.manager(
        [
            bench.own_class(
                "v2 office", Office, "meter", polls=(traces,), options={"acquire": False}, args=v2_got.args
            ),
            bench.own_actor("v4 office", OfficeActor, "stage", args=v4_got.args),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    before = _answered(meter_sim, "D"), _answered(stage_sim, "1TP")
    crowd = Crowd()
    sending = (_send_all(manager, office, got, crowd) for office, got in (("v2 office", v2_got), ("v4 office", v4_got)))
    await asyncio.gather(*sending)
    after = _answered(meter_sim, "D"), _answered(stage_sim, "1TP")
    for side, post, exchanges in (("v2", v2_got, after[0] - before[0]), ("v4", v4_got, after[1] - before[1])):
        _check_post(side, post, exchanges)
        _note_post(bench.figures, side, post)
    bench.figures.note("messages at once", crowd.most, "", side="both")
    await _check_memory(manager, v2_got, v4_got)


def _answered(simulator: SimProcess, question: str) -> int:
    """How often a device was asked what each message costs; its identity, asked once by the side, is not counted."""
    return simulator.report()["produced"].get(question, 0)


class Crowd:
    """How many messages are under way, and how many have been at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


async def _send_all(manager: DualRuntimeManager, office: str, got: Post, crowd: Crowd) -> None:
    begun_s = monotonic_s()
    await asyncio.gather(*(_send(manager, office, sender, got, crowd) for sender in range(SENDERS)))
    got.took_s = monotonic_s() - begun_s


async def _send(manager: DualRuntimeManager, office: str, sender: int, got: Post, crowd: Crowd) -> None:
    """One sender: its messages in order, `WINDOW` of them under way at once."""
    room = asyncio.Semaphore(WINDOW)

    async def one(message: tuple[int, int]) -> None:
        sent_s = monotonic_s()
        try:
            with crowd:
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
    received = got.received
    counts = len(received), len(set(received)), exchanges
    proves("exact counts", counts == (total,) * 3, f"{side}: each once, by its device's count too", counts=counts)
    wrong = [(message, answer) for message, answer in got.answered if answer not in (message, list(message))]
    proves("own replies", not wrong and len(got.answered) == total, f"{side}: to each sender his own", wrong=wrong[:3])
    for sender in range(SENDERS):
        numbers = [number for who, number in received if who == sender]
        proves(
            "order", numbers == list(range(MESSAGES)), f"{side}: in the order of sending", sender=sender, got=numbers
        )
    fair_share_s = SENDERS * WINDOW * got.took_s / total
    p50_s, p99_s = got.percentile_s(50), got.percentile_s(99)
    bounded = p99_s <= 3 * fair_share_s + _SLACK_S
    proves("latency", bounded, f"{side}: nobody is forgotten", p50_s=p50_s, p99_s=p99_s, fair_share_s=fair_share_s)


def _note_post(figures: Figures, side: str, got: Post) -> None:
    total = SENDERS * MESSAGES
    figures.note("messages", total, "", side=side)
    figures.note("messages a second", total / got.took_s, "1/s", side=side)
    for percent in (50, 99):
        figures.note(f"message to answer, {percent}th percentile", 1e3 * got.percentile_s(percent), "ms", side=side)


async def _check_memory(manager: DualRuntimeManager, v2_got: Post, v4_got: Post) -> None:
    """Traces for readers who never read: memory grows by what these queues may hold, not by what was produced."""
    idle = [
        manager.v2_data.subscribe("idle reader of v2", capacity=8, accepts=lambda m: m.channel == "trace"),
        manager.v4_data.subscribe("idle reader of v4", capacity=8, streams=["v4 office.trace"]),
    ]
    here = _Memory({os.getpid()} | v2_got.evidence.pids() | v4_got.evidence.pids())
    flooding = asyncio.ensure_future(
        outcome(manager.command("v4 office", Execute("flood", (v4_got.most_traces,)), 20.0))
    )
    await outcome(manager.command("v2 office", StartAcquisition()))
    await until(lambda: v2_got.traces >= v2_got.most_traces and flooding.done(), 20.0, 0.02)
    await outcome(manager.command("v2 office", StopAcquisition()))
    own, shared = here.grown_bytes()
    produced = (v2_got.traces + v4_got.traces) * TRACE_BYTES
    for reader in idle:
        reader.close()
    facts = {"own_mb": own / 1e6, "shared_mb": shared / 1e6, "produced_mb": produced / 1e6}
    proves("bounded memory", produced == 2 * v2_got.most_traces * TRACE_BYTES, "both sides produced", **facts)
    kept = own < produced / 2 and shared <= RINGS_BYTES
    proves("bounded memory", kept, "all processes together kept to their queues' bounds", **facts)


class _Memory:
    """What the processes of both runtimes and the test keep in memory: each its own, and what they share."""

    def __init__(self, pids: set[int]) -> None:
        self._pids = pids
        self._before = self._now()

    def grown_bytes(self) -> tuple[int, int]:
        """By how much it has grown since: what each has for itself, all together; and what they share."""
        now = self._now()
        return now[0] - self._before[0], now[1] - self._before[1]

    def _now(self) -> tuple[int, int]:
        seen = [_resident_bytes(pid) for pid in self._pids]
        return sum(own for own, _ in seen), max(shared for _, shared in seen)


def _resident_bytes(pid: int) -> tuple[int, int]:
    """Anonymous memory, and shared memory, of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    own, shared = (int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))
    return own, shared
