"""How soon the death of a worker process is known, and how soon its replacement answers; what a hang costs.

Workers are killed by SIGKILL, one after the other, each only once its spare stands ready and has done what it does
beforehand; beside every kill a plain child that was forked before anything else is killed in the same way, until its
pidfd is readable. That is also the floor for the moment in which a worker has gone, before which no instrument of its
replacement is started. The limit of five restarts a minute is lifted, and with it the growing delay before a
replacement: they would be what is measured. So every replacement here is as a worker's first one in a lab.

A bare worker holds one instrument without a device. The other one holds PyMeasure's HP34401A on a simulator: the
question of who is at the end of the line, and the opening of the driver, are shown apart from the rest. The answer is
that of a read that was given in the moment in which the death was known, and waits for the replacement. The ring is of
50 MB, and holds as many frames as readers may look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import select
import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from _harness import Goal, parser, report

from duodaq import sim
from duodaq.clock import Deadline, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError, ReplyTimeoutError
from duodaq.model import Execute, GetParameter, InstrumentDefinition, LabDefinition, PortDefinition, RuntimeDefinition
from duodaq.schema import frame_batch
from duodaq.v4 import RestartPolicy, handler
from duodaq.v4.instruments import InstrumentActor, Parameter
from duodaq.workers import _process_group
from duodaq.workers._child import Child
from duodaq.workers._process import ProcessWorker
from duodaq.workers._process_group import ProcessGroup

FRAME = (2048, 2048)
FRAMES = 4
DEADLINE_S = 0.2
KILL_AFTER_S = 0.3
BUDGET_S = 2.0
PATIENTS = 20
SETTLED_S = 0.1
DMM = "pymeasure.instruments.hp:HP34401A"
HAS_PYMEASURE = importlib.util.find_spec("pymeasure") is not None


# ── what lives in the workers


class Show(msgspec.Struct, frozen=True):
    """Publish so many frames."""

    count: int


class Hang(msgspec.Struct, frozen=True):
    """Block the loop for ever."""


class Bare(InstrumentActor):
    """An actor without a device."""

    operations: ClassVar = {"show": Show, "hang": Hang}
    parameters: ClassVar = {"number": Parameter(lambda actor: actor.read_number())}

    async def read_number(self) -> int:
        return 1

    @handler(Show)
    async def show(self, message: Show) -> None:
        for _ in range(message.count):
            number = self.streams.sequence("frames")
            facts: dict[str, Any] = {"instrument": self.definition.id, "channel": "frames", "t_ns": utc_ns()}
            batch = frame_batch(np.ones(FRAME, np.uint16), sequence=number, frame_number=number, **facts)
            await self.streams.deliver("frames", batch)

    @handler(Hang)
    async def hang(self, message: Hang) -> None:
        threading.Event().wait()


class Plain:
    """A blocking driver without a device."""

    number = 1

    def hang(self) -> None:
        threading.Event().wait()


def a_lab(instruments: list[InstrumentDefinition], ports: tuple[PortDefinition, ...] = ()) -> LabDefinition:
    """A lab whose runtimes live in processes."""
    process = (RuntimeDefinition("v2", "process"), RuntimeDefinition("v4", "process"))
    return LabDefinition("bench", ports, tuple(instruments), *process)


@asynccontextmanager
async def running(lab: LabDefinition) -> AsyncIterator[DualRuntimeManager]:
    """A manager of this lab, started; shut down at the end."""
    manager = DualRuntimeManager(lab)
    await manager.start()
    try:
        yield manager
    finally:
        await manager.shutdown(5.0)


def group_of(manager: DualRuntimeManager, instrument: str) -> ProcessGroup:
    """The worker group in which an instrument lives."""
    return manager._of(instrument)._of(instrument).group


# ── what is noted


@dataclass
class Notes:
    """What happened last, in seconds on the performance counter, and what its parts took."""

    signalled: float = 0.0
    known: float = 0.0
    gone: float = 0.0
    identity: float = 0.0
    opened: float = 0.0
    death: asyncio.Event = field(default_factory=asyncio.Event)

    def clear(self) -> None:
        self.signalled = self.known = self.gone = self.identity = self.opened = 0.0
        self.death.clear()


@contextmanager
def noted(notes: Notes) -> Iterator[None]:
    """Take notes of signals, deaths and replacements; lift the limit of restarts meanwhile."""
    lost, send, request, note = ProcessGroup._lost, Child.signal, ProcessWorker.request, Child.note_gone
    impostors, restarts = _process_group.impostors, _process_group.RESTARTS

    def noted_lost(self: ProcessGroup, worker: ProcessWorker, fault: str) -> None:
        notes.known = time.perf_counter()
        notes.death.set()
        lost(self, worker, fault)

    def noted_gone(self: Child) -> None:
        notes.gone = notes.gone or time.perf_counter()
        note(self)

    def noted_signal(self: Child, number: int) -> None:
        notes.signalled = notes.signalled or time.perf_counter()
        send(self, number)

    async def noted_request(self: ProcessWorker, op: str, body: Any, timeout_s: float) -> Any:
        begun = time.perf_counter()
        result = await request(self, op, body, timeout_s)
        if op == "start":
            notes.opened = time.perf_counter() - begun
        return result

    async def noted_impostors(*given: Any) -> dict[str, str]:
        begun = time.perf_counter()
        found = await impostors(*given)
        notes.identity = time.perf_counter() - begun
        return found

    ProcessGroup._lost, Child.signal, ProcessWorker.request = noted_lost, noted_signal, noted_request
    Child.note_gone = noted_gone
    _process_group.impostors = noted_impostors
    _process_group.RESTARTS = RestartPolicy(limit=1_000_000, backoff=lambda _: 0.0)
    try:
        yield
    finally:
        ProcessGroup._lost, Child.signal, ProcessWorker.request, Child.note_gone = lost, send, request, note
        _process_group.impostors, _process_group.RESTARTS = impostors, restarts


async def at_peace(manager: DualRuntimeManager, group: ProcessGroup) -> None:
    """Wait until the worker runs and its spare, and the bare one, stand ready and have nothing left to do."""
    limit, spares = Deadline(30.0), manager.housing.nursery._spares
    before: dict[int, str] = {}
    while True:
        there = group.current is not None and not group.restarting and {group.name, None} <= set(spares.ready)
        work = {spare.pid: _work(spare.pid) for spare in spares.ready.values()}
        if there and work == before:
            return
        assert not limit.passed, f"{group.name}: no worker or no spare; {group.cause} {spares.last_error}"
        before = work
        await pause(SETTLED_S)


def _work(pid: int) -> str:
    """How long a process has had a processor; a paced import rests for less than `SETTLED_S`."""
    return Path(f"/proc/{pid}/schedstat").read_text().split()[0]


# ── deaths


class Forked:
    """Children that do nothing, forked before there is any thread or loop: what is killed for comparison."""

    def __init__(self, count: int) -> None:
        self._pids = [self._fork() for _ in range(count)]

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()
        return pid

    def end_ms(self) -> float:
        """Milliseconds from the SIGKILL of the next one until its pidfd is readable."""
        pid = self._pids.pop()
        pidfd = os.pidfd_open(pid)
        begun = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
        took = time.perf_counter() - begun
        os.close(pidfd)
        os.waitpid(pid, 0)
        return took * 1e3

    def close(self) -> None:
        """End what is left of them."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


Figures = dict[str, list[float]]


async def kill(manager: DualRuntimeManager, instrument: str, read: str, notes: Notes, figures: Figures) -> None:
    """Kill the worker of an instrument, and await the answer to a read that waits for the replacement."""
    group = group_of(manager, instrument)
    await at_peace(manager, group)
    assert group.current is not None
    held = await _frames_in_hand(manager) if instrument == "cam" else []
    notes.clear()
    killed = time.perf_counter()
    signal.pidfd_send_signal(group.current.child.pidfd, signal.SIGKILL)
    await notes.death.wait()
    figures[f"{instrument} known"].append((notes.known - killed) * 1e3)
    del held
    await manager.command(instrument, GetParameter(read), 10.0)
    answered = time.perf_counter()
    while not notes.opened:
        await pause(0.001)
    parts = {"after known": answered - notes.known, "after kill": answered - killed, "gone": notes.gone - killed}
    parts |= {"identity": notes.identity, "open": notes.opened}
    parts["rest"] = max(0.0, parts["after known"] - notes.identity - notes.opened)
    for part, seconds in parts.items():
        figures[f"{instrument} {part}"].append(seconds * 1e3)


async def _frames_in_hand(manager: DualRuntimeManager) -> list[Any]:
    """Frames that lie in the ring, and are looked at."""
    with contextlib.closing(manager.v4_data.subscribe("held", capacity=64)) as frames:
        await manager.command("cam", Execute("show", (FRAMES,)), 10.0)
        return [await frames.get(10.0) for _ in range(FRAMES)]


async def deaths(kills: int, forked: Forked, figures: Figures) -> None:
    """Kill each kind of worker so often, in turns."""
    with contextlib.ExitStack() as stack:
        ports: tuple[PortDefinition, ...] = ()
        own: dict[str, Any] = {"worker": "own"}
        instruments = [InstrumentDefinition(name, "v4", Bare, **own) for name in ("v4", "cam")]
        reads = {"v4": "number", "v2": "number", "cam": "number"}
        instruments.append(InstrumentDefinition("v2", "v2", Plain, passive=True, **own))
        if HAS_PYMEASURE:
            device = stack.enter_context(sim.launch("scpi-dmm"))
            ports = (PortDefinition("dmm", serial={"path": device.address}, codec="scpi"),)
            instruments.append(InstrumentDefinition("dmm", "v2", DMM, port="dmm", passive=True, **own))
            reads["dmm"] = "name"
        notes = Notes()
        stack.enter_context(noted(notes))
        async with running(a_lab(instruments, ports)) as manager:
            figures["spare"] = [private_mb((await _spares(manager))[None].pid)]
            figures["named spare"] = [private_mb((await _spares(manager))["v4.v4"].pid)]
            for _ in range(kills):
                for instrument, read in reads.items():
                    figures["forked"].append(forked.end_ms())
                    await kill(manager, instrument, read, notes, figures)


async def _spares(manager: DualRuntimeManager) -> Mapping[str | None, Child]:
    await at_peace(manager, group_of(manager, "v4"))
    return manager.housing.nursery._spares.ready


def private_mb(pid: int) -> float:
    """How much memory a process shares with nobody, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1024


# ── hangs


async def hangs(count: int, figures: Figures) -> None:
    """Let the worker of either runtime hang so often."""
    facts: dict[str, Any] = {"worker": "own", "kill_after_s": KILL_AFTER_S}
    instruments = [InstrumentDefinition("v4", "v4", Bare, **facts)]
    instruments.append(InstrumentDefinition("v2", "v2", Plain, passive=True, **facts))
    notes = Notes()
    with noted(notes):
        async with running(a_lab(instruments)) as manager:
            for _ in range(count):
                for instrument in ("v4", "v2"):
                    await hang(manager, instrument, notes, figures)


async def hang(manager: DualRuntimeManager, instrument: str, notes: Notes, figures: Figures) -> None:
    """Let one hang, until its replacement answers."""
    await at_peace(manager, group_of(manager, instrument))
    notes.clear()
    begun = time.perf_counter()
    with contextlib.suppress(ReplyTimeoutError):
        await manager.command(instrument, Execute("hang"), DEADLINE_S)
        raise AssertionError("it did not hang")
    figures[f"{instrument} error"].append((time.perf_counter() - begun - DEADLINE_S) * 1e3)
    await notes.death.wait()
    await manager.command(instrument, GetParameter("number"), 10.0)
    figures[f"{instrument} replaced"].append(time.perf_counter() - notes.signalled)


async def shutdown_s(own: bool, patients: int) -> float:
    """How much longer than its budget the shutdown of so many hung drivers takes, in seconds."""
    facts: dict[str, Any] = {"passive": True, "kill_after_s": 600.0, "worker": "own" if own else ""}
    names = [f"p{number}" for number in range(patients)]
    manager = DualRuntimeManager(a_lab([InstrumentDefinition(name, "v2", Plain, **facts) for name in names]))
    await manager.start()
    calls = [asyncio.ensure_future(manager.command(name, Execute("hang"), DEADLINE_S)) for name in names]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, DuodaqError) for error in errors), errors
    begun = time.perf_counter()
    await manager.shutdown(BUDGET_S)
    return time.perf_counter() - begun - BUDGET_S


# ── together


def main() -> None:
    """Measure, and print medians."""
    quick = parser(__doc__).parse_args().quick
    kills, hanging, patients = (2, 1, 4) if quick else (20, 20, PATIENTS)
    forked, figures = Forked(4 * kills), defaultdict[str, list[float]](list)
    try:
        logging.getLogger("duodaq").addHandler(logging.NullHandler())
        logging.getLogger("duodaq").propagate = False
        asyncio.run(deaths(kills, forked, figures))
        asyncio.run(hangs(hanging, figures))
        own, shared = (asyncio.run(shutdown_s(own, patients)) for own in (True, False))
    finally:
        forked.close()
    medians = {name: statistics.median(column) for name, column in figures.items()}
    goals = [*_known(medians), *_answers(medians), *_hangs(medians)]
    goals.append(Goal("a bare spare's own memory", medians["spare"], "≤", 3, "MB"))
    goals.append(Goal("that of one that has rehearsed for a bare V4 worker", medians["named spare"], unit="MB"))
    goals.append(Goal(f"{patients} hung workers: shutdown beyond its budget", own * 1e3, "≤", 100, "ms"))
    goals.append(Goal(f"{patients} hung drivers in one: the same", shared * 1e3, "≤", 100, "ms"))
    report(goals, quick=quick)


def _known(ms: dict[str, float]) -> list[Goal]:
    return [
        Goal("SIGKILL of a V4 worker until the manager knows", ms["v4 known"], "≤", 2, "ms"),
        Goal("SIGKILL of a V2 worker until the manager knows", ms["v2 known"], "≤", 2, "ms"),
        Goal("SIGKILL with a 50 MB ring until the manager knows", ms["cam known"], "≤", 6, "ms"),
        Goal("SIGKILL of a plain forked child until its pidfd tells", ms["forked"], unit="ms"),
        Goal("SIGKILL of a V4 worker until it has gone", ms["v4 gone"], unit="ms"),
        Goal("SIGKILL of a V2 worker until it has gone", ms["v2 gone"], unit="ms"),
        Goal("gone, V4 worker / plain child", ms["v4 gone"] / ms["forked"]),
    ]


def _answers(ms: dict[str, float]) -> list[Goal]:
    goals: list[Goal] = []
    for name, kind in (("v4", "bare V4"), ("v2", "bare V2")):
        goals += [
            Goal(f"known to first answer, {kind}", ms[f"{name} after known"], "≤", 5, "ms"),
            Goal(f"SIGKILL to first answer, {kind}", ms[f"{name} after kill"], unit="ms"),
            Goal(f"of that, the instrument opened, {kind}", ms[f"{name} open"], unit="ms"),
        ]
    if not HAS_PYMEASURE:
        print("PyMeasure is not installed: no HP34401A")
        return goals
    return [
        *goals,
        Goal("known to first answer, HP34401A, without open and identity", ms["dmm rest"], "≤", 5, "ms"),
        Goal("HP34401A: identity of the device", ms["dmm identity"], unit="ms"),
        Goal("HP34401A: the driver opened", ms["dmm open"], unit="ms"),
        Goal("known to first answer, HP34401A, all of it", ms["dmm after known"], unit="ms"),
        Goal("SIGKILL to first answer, HP34401A", ms["dmm after kill"], unit="ms"),
    ]


def _hangs(figures: dict[str, float]) -> list[Goal]:
    return [
        goal
        for name in ("v4", "v2")
        for goal in (
            Goal(f"{name.upper()} hangs: error after the deadline", figures[f"{name} error"], "≤", 100, "ms"),
            Goal(f"{name.upper()} hangs: killed to first answer", figures[f"{name} replaced"], "≤", 2, "s"),
        )
    ]


if __name__ == "__main__":
    main()
