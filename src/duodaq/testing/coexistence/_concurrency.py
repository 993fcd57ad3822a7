"""Many at once: throughput, contention for one line, and a shutdown in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import LifecycleError
from duodaq.model import (
    AxisDefinition,
    Execute,
    InstrumentDefinition,
    PollDefinition,
    PortDefinition,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.sim import SimProcess, TableProcess
from duodaq.storage import Recorder
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._contest import Contest, Victim, asking_actor, asking_class, victim_actor
from duodaq.testing.coexistence._endpoints import Reading, batches_in
from duodaq.testing.coexistence._late_work import (
    Ended,
    Recording,
    ask_directly,
    dialling_class,
    dozing_class,
    ended,
    filing_actor,
    of_fate,
    plain_rows,
)
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
        proves("exact counts", counted == own > 0, "the device's count", axis=axis, device=counted, asked=asked)
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


# ── test_graceful_shutdown_with_active_ops ──────────────────────────────────────────────────────────────────────────

BUDGET_S = 2.5
_FAR_MM, _NEAR_MM = 20.0, 0.4


async def test_graceful_shutdown_with_active_ops(bench: Bench) -> None:
    """Each accepted operation ends with one fate that the devices confirm; short ones complete; files are whole."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    (await bench.table()).set_shutter(True)
    work = LateWork()
    manager = bench.manager(work.instruments(bench), work.ports(bench, meter_sim, stage_sim))
    with tempfile.TemporaryDirectory(prefix="duodaq-recording-") as directory:
        recording = Recording(Recorder(Path(directory) / "run", manager.v4_data))
        await manager.start()
        await recording.recorder.start()
        manager.attach("recording", recording)
        witness = manager.v4_data.subscribe("witness", capacity=65536, streams=["stage.x"])
        operations = await work.begin(manager, await bench.table())
        shutdown = asyncio.ensure_future(manager.shutdown(BUDGET_S))
        await pause(0.02)
        late = await outcome(manager.command("clerk", Execute("file", (99,))))
        report = await shutdown
        finished = await _all_ended(operations)
        _check_short_ones(finished)
        refused = isinstance(late, LifecycleError) and 99 not in work.filed
        proves("late work is refused", refused, "nothing new is accepted", got=late)
        _check_v2_state(finished, work, meter_sim)
        _check_v4_state(finished, work, stage_sim)
        await _check_motion(finished, await bench.table(), stage_sim)
        _check_files(Path(directory) / "run", work.said, sum(b.num_rows for b in batches_in(witness)))
        witness.close()
        proves("budget", report.took_s <= BUDGET_S + 0.1, "and all in time", took_s=report.took_s)


class LateWork:
    """The instruments and the operations that a shutdown meets."""

    def __init__(self) -> None:
        self.said: list[Reading] = []
        self.dialled: list[int] = []
        self.dozed: list[float] = []
        self.filed: list[int] = []

    def instruments(self, bench: Bench) -> list[InstrumentDefinition]:
        power = PollDefinition("power", 0.005, "W", call="read")
        y = AxisDefinition("y", 2, "mm", (-10.0, 25.0))
        stage = bench.stage()
        return [
            bench.own_class(
                "dialler",
                dialling_class(self.said, self.dialled),
                "meter",
                polls=(power,),
                options={"acquire": False},
            ),
            bench.own_class("dozer", dozing_class(self.dozed), "meter", deadline_s=None),
            replace(stage, axes=(*stage.axes, y), args={"poll_s": 0.02}),
            bench.own_actor("clerk", filing_actor(self.filed), "stage"),
        ]

    @staticmethod
    def ports(bench: Bench, meter_sim: SimProcess, stage_sim: SimProcess) -> list[PortDefinition]:
        return [
            bench.serial_port("meter", meter_sim, "newport1830c"),
            bench.serial_port("stage", stage_sim, "esp300"),
        ]

    async def begin(self, manager: DualRuntimeManager, table: TableProcess) -> dict[Any, asyncio.Future[Any]]:
        """Begin everything, and wait until all of it is accepted and some of it under way."""
        for name in ("dialler", "stage"):
            await outcome(manager.command(name, StartAcquisition()))
        await outcome(manager.command("stage", Execute("configure", ("x",), {"velocity": 2.0})))
        commands: dict[Any, tuple[str, Execute]] = {
            "far": ("stage", Execute("move", ("x", _FAR_MM))),
            "near": ("stage", Execute("move", ("y", _NEAR_MM))),
            "doze": ("dozer", Execute("doze", (30.0,))),
            **{("dial", 500 + n): ("dialler", Execute("dial", (500 + n,))) for n in range(20)},
            **{("file", 1 + n): ("clerk", Execute("file", (1 + n,))) for n in range(20)},
        }
        begun: dict[Any, asyncio.Future[Any]] = {
            name: asyncio.ensure_future(outcome(manager.command(instrument, command, 30.0)))
            for name, (instrument, command) in commands.items()
        }
        await until(lambda: table.state().moving.get(1, False) and bool(self.dialled and self.filed), 3.0, 0.01)
        return begun


async def _all_ended(operations: dict[Any, asyncio.Future[Any]]) -> list[Ended]:
    _, open_still = await asyncio.wait(operations.values(), timeout=1.0)
    forgotten = [name for name, operation in operations.items() if operation in open_still]
    for operation in open_still:
        operation.cancel()
    proves("one fate", not forgotten, "every accepted operation has ended", forgotten=forgotten)
    return [ended(name, operation.result()) for name, operation in operations.items()]


def _kind(finished: list[Ended], kind: str) -> list[Ended]:
    return [operation for operation in finished if _is_of(operation.name, kind)]


def _is_of(name: Any, kind: str) -> bool:
    return not isinstance(name, str) and name[0] == kind


def _check_short_ones(finished: list[Ended]) -> None:
    fates = {operation.name: operation.fate for operation in finished}
    proves("short ones complete", fates["near"] == "done", "the short move", got=fates["near"])
    for kind in ("dial", "file"):
        done = of_fate(_kind(finished, kind), "done")
        proves("short ones complete", len(done) >= 2, f"those that were next to {kind}", done=done)
    cut = fates["far"] != "done" and fates["doze"] != "done"
    proves("long ones end", cut, "what would take too long is cut off", far=fates["far"], doze=fates["doze"])


def _check_effects(kind: str, finished: list[Ended], really: list[int], device: int) -> None:
    """What was done was done, what was not done was not, and the device has the last of it."""
    done = [number for _, number in of_fate(_kind(finished, kind), "done")]
    not_done = {number for _, number in of_fate(_kind(finished, kind), "not done")}
    open_still = len(_kind(finished, kind)) - len(done) - len(not_done)
    agrees = really[: len(done)] == done and not not_done & set(really) and len(really) - len(done) <= open_still
    proves("fates agree", agrees, f"{kind}: with what the driver did", done=done, really=really, not_done=not_done)
    proves("fates agree", device == really[-1], f"{kind}: with the device", device=device, last=really[-1])


def _check_v2_state(finished: list[Ended], work: LateWork, meter_sim: SimProcess) -> None:
    _check_effects("dial", finished, work.dialled, meter_sim.report()["settings"].get("W", 0))
    proves("fates agree", len(work.dozed) > 0, "the long one had begun", read=len(work.dozed))
    doze = next(operation for operation in finished if operation.name == "doze")
    proves("fates agree", doze.fate == "unknown", "of the one cut off nobody can say more", got=doze)


def _check_v4_state(finished: list[Ended], work: LateWork, stage_sim: SimProcess) -> None:
    velocity = ask_directly(stage_sim.address, b"3VA?\r")
    _check_effects("file", finished, work.filed, int(float(velocity or -1)))


async def _check_motion(finished: list[Ended], table: TableProcess, stage_sim: SimProcess) -> None:
    moves = {move["axis"]: move["target"] for move in stage_sim.report()["moves"]}
    first = table.state()
    await pause(0.1)
    then = table.state()
    begun = moves == {1: _FAR_MM, 2: _NEAR_MM}
    proves("fates agree", begun, "the controller began both moves and no other", moves=moves)
    near = abs(then.positions[2] - _NEAR_MM) < 0.01
    proves("fates agree", near, "the short move arrived", at=then.positions[2])
    still = not then.moving[1] and first.positions[1] == then.positions[1]
    proves("nothing moves on", still, "the long move was stopped with its operation", at=then.positions[1])
    far = next(operation for operation in finished if operation.name == "far")
    short = 0.0 < then.positions[1] < _FAR_MM - 1.0
    proves("fates agree", short and far.fate != "not done", "and ended short of its target", at=then, got=far)


def _check_files(directory: Path, said: list[Reading], published: int) -> None:
    power = plain_rows(directory, "dialler.power")
    values = power.get("value", [])
    whole = values == [r.value for r in said] and len(values) > 0
    proves("files complete", whole, "all that V2 read", rows=len(values), read=len(said))
    stage = plain_rows(directory, "stage.x")
    numbers = stage.get("sequence", [])
    proves("files complete", len(numbers) == published > 0, "all that V4 published", rows=len(numbers), of=published)
    for columns in (power, stage):
        numbers = columns["sequence"]
        proves("files complete", numbers == list(range(len(numbers))), "without a gap", last=numbers[-1:])
