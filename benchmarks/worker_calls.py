"""What one call of an instrument in a process of its own costs, through the manager and back.

V4: an actor whose handler returns at once. V2: a method of a plain class, by Execute; its driver has a thread of its
own there. Beside them the same call with the runtime inline and in a thread. The goals in µs are for the machine as it
is; for those in multiples both processes are held on one core, where a wake-up costs the same for everybody. Their
baseline is a blocking ping-pong over an AF_UNIX socket, on that core and in the same turn, of as many bytes as cross
for one call; multiprocessing's Pipe, with the same question and answer as objects, stands beside it as the peer.

The floor is what the least of such calls costs here and now: two loops, one frame, and for V2 a thread
(`_call_floor.py`). Beside it stands the blocking ping-pong with both ends free to run where they like.

The manager's loop is the one that a lab has: uvloop's where it is installed. Then the rows with asyncio's stand beside.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from _call_floor import floor_us
from _harness import Goal, LoopFactory, loops, parser, report

from duodaq.dual import DualRuntimeManager
from duodaq.link import Pipe
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, RuntimeDefinition
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

KINDS = ("inline", "thread", "process")
FLOORS = {"v4": "task", "v2": "thread"}
GOAL_US = 150
GOAL_TIMES = {"v4": 25, "v2": 40}


class Ping(msgspec.Struct, frozen=True):
    """Asks for its own number."""

    number: int


class Who(msgspec.Struct, frozen=True):
    """Asks for its process."""


class Echo(InstrumentActor):
    """An actor whose handler is trivial."""

    operations: ClassVar = {"ping": Ping, "who": Who}

    @handler(Ping, idempotent=True)
    async def ping(self, message: Ping) -> int:
        return message.number

    @handler(Who)
    async def who(self, message: Who) -> int:
        return os.getpid()


class Plain:
    """A blocking driver without a device."""

    def ping(self, number: int) -> int:
        return number

    def who(self) -> int:
        return os.getpid()


def a_lab(kind: str) -> LabDefinition:
    """One instrument in either runtime, both in workers of this kind."""
    return LabDefinition(
        "bench",
        instruments=(InstrumentDefinition("v4", "v4", Echo), InstrumentDefinition("v2", "v2", Plain, passive=True)),
        v2=RuntimeDefinition("v2", kind),
        v4=RuntimeDefinition("v4", kind),
    )


# ── calls through the manager


async def median_us(ask: Callable[[int], Awaitable[Any]], rounds: int) -> float:
    """The median duration of `ask`, in µs; its first tenth is not counted."""
    clock, took = time.perf_counter_ns, [0] * rounds
    for number in range(-rounds // 10, rounds):
        begun = clock()
        answer = await ask(number)
        took[number] = clock() - begun
        assert answer == number
    return statistics.median(took) / 1000


async def calls_us(kind: str, rounds: int, core: int | None) -> dict[str, float]:
    """The median of a call of either runtime in a worker of this kind, which is pinned to `core` if one is given."""
    manager = DualRuntimeManager(a_lab(kind))
    await manager.start()
    try:
        medians: dict[str, float] = {}
        for runtime in ("v4", "v2"):
            pid = await manager.command(runtime, Execute("who"), 5.0)
            assert (pid != os.getpid()) == (kind == "process")
            if core is not None:
                pin(pid, core)
            medians[runtime] = await median_us(
                lambda n, r=runtime: manager.command(r, Execute("ping", (n,)), 5.0), rounds
            )
        return medians
    finally:
        await manager.shutdown(5.0)


async def crossed_bytes(calls: int = 21) -> dict[str, tuple[int, int]]:
    """How many bytes one call of either runtime sends to its process, and gets from it."""
    sizes = {"sent": 0, "heard": 0}
    manager = DualRuntimeManager(a_lab("process"))
    await manager.start()
    try:
        with tapped(sizes):
            return {runtime: await _typical(manager, runtime, sizes, calls) for runtime in ("v4", "v2")}
    finally:
        await manager.shutdown(5.0)


async def _typical(manager: DualRuntimeManager, runtime: str, sizes: dict[str, int], calls: int) -> tuple[int, int]:
    seen: list[tuple[int, int]] = []
    for number in range(calls):
        sizes.update(sent=0, heard=0)
        await manager.command(runtime, Execute("ping", (number,)), 5.0)
        seen.append((sizes["sent"], sizes["heard"]))
    return statistics.mode(seen)  # now and then a state or a figure comes in between


@contextmanager
def tapped(sizes: dict[str, int]) -> Iterator[None]:
    """Count the bytes on the manager's ends of the links."""
    write, take = Pipe._write, Pipe._take

    def counted_write(self: Pipe, data: bytes | bytearray) -> int:
        sizes["sent"] += len(data)
        return write(self, data)

    def counted_take(self: Pipe, data: bytes) -> None:
        sizes["heard"] += len(data)
        take(self, data)

    Pipe._write, Pipe._take = counted_write, counted_take
    try:
        yield
    finally:
        Pipe._write, Pipe._take = write, take


# ── the baselines


def ping_pong_us(rounds: int, core: int | None, sent: int, heard: int) -> float:
    """The median of a blocking exchange of so many bytes over a socket pair, in µs."""
    with peer("socket", core, sent, heard) as ours:
        question, answer = bytes(sent), bytes(heard)

        def exchange(_: int) -> None:
            ours.sendall(question)
            assert _receive(ours, heard) == answer

        return _blocking_median_us(exchange, rounds)


def pipe_us(rounds: int, core: int | None) -> float:
    """The median of a question and its answer over multiprocessing's Pipe, in µs."""
    with peer("pipe", core) as ours, Connection(os.dup(ours.fileno())) as pipe:

        def exchange(number: int) -> None:
            pipe.send(("v2", Execute("ping", (number,)), 5.0))
            assert pipe.recv() == number

        return _blocking_median_us(exchange, rounds)


def _blocking_median_us(exchange: Callable[[int], None], rounds: int) -> float:
    clock, took = time.perf_counter_ns, [0] * rounds
    for number in range(-rounds // 10, rounds):
        begun = clock()
        exchange(number)
        took[number] = clock() - begun
    return statistics.median(took) / 1000


@contextmanager
def peer(kind: str, core: int | None, sent: int = 0, heard: int = 0) -> Iterator[socket.socket]:
    """A process that answers, on `core` if one is given, and this end of its socket; it ends with the socket."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, __file__, "--peer", kind, str(theirs.fileno()), str(sent), str(heard)]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        if core is not None:
            pin(process.pid, core)
        try:
            yield ours
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(5.0)


def be_peer(kind: str, fd: int, sent: int, heard: int) -> None:
    """Answer until the other end closes."""
    if kind == "pipe":
        pipe, plain = Connection(fd), Plain()
        try:
            while True:
                _, command, _ = pipe.recv()
                pipe.send(getattr(plain, command.name)(*command.args))
        except EOFError:
            return
    answer = bytes(heard)
    with socket.socket(fileno=fd) as theirs:
        while len(_receive(theirs, sent)) == sent:
            theirs.sendall(answer)


def _receive(end: socket.socket, size: int) -> bytes:
    data = end.recv(size)
    while 0 < len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


# ── cores


def pin(pid: int, core: int | set[int]) -> None:
    """Let every thread of a process run on this core only."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core} if isinstance(core, int) else core)


@contextmanager
def pinned(core: int) -> Iterator[int]:
    """This process on one core."""
    before = os.sched_getaffinity(0)
    pin(os.getpid(), core)
    try:
        yield core
    finally:
        pin(os.getpid(), before)


# ── together


def turn(
    rounds: int,
    sizes: dict[str, tuple[int, int]],
    took: dict[str, list[float]],
    on_loops: dict[str, LoopFactory],
) -> None:
    """Measure everything once, on each loop; what is compared stands side by side."""
    core = max(os.sched_getaffinity(0))
    for loop, factory in on_loops.items():
        for kind in KINDS:
            for runtime, us in on(factory, calls_us(kind, rounds, None)).items():
                took[f"{runtime} {kind} {loop}"].append(us)
        with pinned(core):
            for runtime, us in on(factory, calls_us("process", rounds, core)).items():
                took[f"{runtime} pinned {loop}"].append(us)
        for runtime, kind in FLOORS.items():
            took[f"{runtime} floor {loop}"].append(on(factory, floor_us(kind, rounds, None)))
            with pinned(core):
                held = on(factory, floor_us(kind, rounds, lambda pid: pin(pid, core)))
            took[f"{runtime} floor pinned {loop}"].append(held)
    with pinned(core):
        for runtime, (sent, heard) in sizes.items():
            took[f"{runtime} ping-pong"].append(ping_pong_us(rounds, core, sent, heard))
        took["pipe pinned"].append(pipe_us(rounds, core))
    took["pipe"].append(pipe_us(rounds, None))
    for runtime, (sent, heard) in sizes.items():
        took[f"{runtime} ping-pong free"].append(ping_pong_us(rounds, None, sent, heard))


def on(factory: LoopFactory, work: Any) -> Any:
    """Run `work` on a fresh loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def main() -> None:
    """Measure in turns, and show the median of each figure over the turns."""
    options = parser(__doc__)
    options.add_argument("--peer", nargs=4, metavar=("KIND", "FD", "SENT", "HEARD"), help="be the peer (internal)")
    asked = options.parse_args()
    if asked.peer:
        kind, *numbers = asked.peer
        be_peer(kind, *map(int, numbers))
        return
    rounds, turns = (100, 1) if asked.quick else (2000, 5)
    on_loops = loops()
    if asked.quick:
        on_loops = dict([on_loops.popitem()])  # the one that a lab would take
    sizes = asyncio.run(crossed_bytes())
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(turns):
        turn(rounds, sizes, took, on_loops)
    us = {name: statistics.median(column) for name, column in took.items()}
    for runtime, (sent, heard) in sizes.items():
        print(f"one {runtime} call: {sent} bytes there, {heard} back")
    report([goal for runtime in ("v4", "v2") for goal in _goals(runtime, us)] + _peers(us), quick=asked.quick)


_BESIDES = {"v4": "", "v2": ", a thread and back"}


def _goals(runtime: str, us: dict[str, float]) -> list[Goal]:
    name, baseline = runtime.upper(), us[f"{runtime} ping-pong"]
    loop = "uvloop" if f"{runtime} process uvloop" in us else "asyncio"  # as `clock.new_loop` chooses for a lab
    goals = [
        Goal(f"{name} isolated call, p50", us[f"{runtime} process {loop}"], "≤", GOAL_US, "µs"),
        Goal(
            f"{name} isolated call / AF_UNIX ping-pong, all on one core",
            us[f"{runtime} pinned {loop}"] / baseline,
            "≤",
            GOAL_TIMES[runtime],
        ),
        Goal(f"{name} floor: two loops, one frame{_BESIDES[runtime]}", us[f"{runtime} floor {loop}"], unit="µs"),
        Goal(f"{name} floor on one core", us[f"{runtime} floor pinned {loop}"], unit="µs"),
        Goal(f"{name} ping-pong of the same sizes, free", us[f"{runtime} ping-pong free"], unit="µs"),
        Goal(f"{name} ping-pong of the same sizes on that core", baseline, unit="µs"),
        Goal(f"{name} isolated call on that core", us[f"{runtime} pinned {loop}"], unit="µs"),
        Goal(f"{name} the same call inline", us[f"{runtime} inline {loop}"], unit="µs"),
        Goal(f"{name} the same call in a thread", us[f"{runtime} thread {loop}"], unit="µs"),
    ]
    if loop != "asyncio" and f"{runtime} process asyncio" in us:
        goals += [
            Goal(f"{name} isolated call, p50, the manager on asyncio", us[f"{runtime} process asyncio"], unit="µs"),
            Goal(f"{name} the same, all on one core / ping-pong", us[f"{runtime} pinned asyncio"] / baseline),
            Goal(f"{name} floor, the manager on asyncio", us[f"{runtime} floor asyncio"], unit="µs"),
        ]
    return goals


def _peers(us: dict[str, float]) -> list[Goal]:
    return [
        Goal("multiprocessing.Pipe, blocking, question and answer", us["pipe"], unit="µs"),
        Goal("the same on one core / V2's ping-pong", us["pipe pinned"] / us["v2 ping-pong"]),
    ]


if __name__ == "__main__":
    main()
