"""A ward: one patient in a worker process, two healthy instruments beside it, each on a device of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_table import FaultWatch, faults_of

from duodaq import sim
from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dataplane import Policy
from duodaq.dual import DualRuntimeManager
from duodaq.model import (
    Cause,
    Execute,
    InstrumentDefinition,
    InstrumentStatus,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    RuntimeDefinition,
    SafeAction,
    StopAcquisition,
)
from duodaq.schema import scalars_of
from duodaq.testing.coexistence._fragile import Witness

PASSED = pytest.StashKey[bool]()
PATIENTS = Path(__file__).with_name("patients.py")
DEADLINE_S = 0.4
KILL_AFTER_S = 0.5
MEMORY_BYTES = 200 * 2**20
ALL = 1 << 17
EVERY_S = 0.004
PEACE_S = 0.15
STRIKE_S = 0.3
FLOOR_S = 0.005
PATIENCE_S = 10.0
ROUNDS = 5
"""A worker may be replaced five times a minute."""


@dataclass
class Beat:
    """Asks one instrument again and again; an answer's time counts from when the question was due."""

    ask: Callable[[int], Awaitable[Any]]
    window: list[float] = field(default_factory=list[float])
    peace: list[list[float]] = field(default_factory=list[list[float]])
    strikes: list[list[float]] = field(default_factory=list[list[float]])
    wrong: list[Any] = field(default_factory=list[Any])

    async def run(self) -> None:
        number = 0
        while True:
            due_s = monotonic_s() + EVERY_S
            await pause(EVERY_S)
            number += 1
            try:
                answer = await self.ask(number)
            except Exception as error:  # noqa: BLE001  the test looks at whatever came
                answer = error
            self.window.append(monotonic_s() - due_s)
            if answer != number:
                self.wrong.append(answer)

    def begin(self, windows: list[list[float]]) -> None:
        self.window = []
        windows.append(self.window)

    @property
    def figures_s(self) -> tuple[float, float]:
        """The 99th percentile: of all peace, and of the quietest strike; a busy machine may spoil some, not all."""
        return p99([t for window in self.peace for t in window]), min(map(p99, self.strikes), default=0.0)

    @property
    def undisturbed(self) -> bool:
        peace_s, strike_s = self.figures_s
        return strike_s <= max(2 * peace_s, FLOOR_S)


def p99(times_s: list[float]) -> float:
    ordered = sorted(times_s)
    return ordered[int(0.99 * (len(ordered) - 1))] if ordered else float("inf")


class Ward:
    """The lab of a fault test. `runtime` is the patient's."""

    def __init__(
        self, devices: dict[str, sim.SimProcess], orders: Path, runtime: str, timed: bool, **patient: Any
    ) -> None:
        self.runtime = runtime
        self.timed = timed
        """Whether how quickly anybody answers is judged; else the machine may be as busy as it likes."""
        self.deadline_s: float = patient.get("deadline_s", DEADLINE_S if timed else PATIENCE_S)
        self.devices = devices
        self.device = devices["patient"]
        self.orders = orders
        self.manager = DualRuntimeManager(self._lab(patient))
        within_s = 2.0 if timed else PATIENCE_S
        self.beats = {
            "steady": Beat(lambda n: self.manager.command("steady", Execute("ping", (n,)), within_s)),
            "witness": Beat(lambda n: self.manager.command("witness", Execute("ping", (n,)), within_s)),
        }
        self.heard: list[tuple[float, int]] = []
        self._made: dict[str, int] = {}

    def _lab(self, patient: dict[str, Any]) -> LabDefinition:
        facts: dict[str, Any] = {"port": "patient", "args": {"orders": str(self.orders)}}
        facts |= {"kill_after_s": KILL_AFTER_S if self.timed else PATIENCE_S, "deadline_s": self.deadline_s}
        facts |= {"safe": {Cause.CRASH: SafeAction("bytes", data=b"W632\n")}, **patient}
        if self.runtime == "v2":
            polls = (PollDefinition("power", 0.02, "W", call="power"),)
            ill = InstrumentDefinition("patient", "v2", f"{PATIENTS}:Patient", polls=polls, **facts)
        else:
            facts["args"] = {**facts["args"], "rate_hz": 50}
            facts.setdefault("options", {"acquire": True})
            ill = InstrumentDefinition("patient", "v4", f"{PATIENTS}:PatientActor", worker="own", **facts)
        steady = PollDefinition("power", 0.01, "W", call="power")
        # a reply that a busy machine gives late is a reading that its device has made and nobody got
        replies_s = dict.fromkeys(self.devices, PATIENCE_S) | {"patient": 0.3}
        return LabDefinition(
            "ward",
            ports=tuple(
                PortDefinition(
                    name,
                    serial={"path": device.address},
                    codec="newport1830c",
                    timeout_s=replies_s[name],
                )
                for name, device in self.devices.items()
            ),
            instruments=(
                ill,
                InstrumentDefinition(
                    "steady", "v2", f"{PATIENTS}:Steady", port="steady", polls=(steady,), worker="own", passive=True
                ),
                InstrumentDefinition(
                    "witness", "v4", Witness, port="witness", args={"rate_hz": 100}, options={"acquire": True}
                ),
            ),
            v2=RuntimeDefinition("v2", "process", memory_bytes=MEMORY_BYTES),
            v4=RuntimeDefinition("v4", "inline", memory_bytes=MEMORY_BYTES),
        )

    # ---- the patient

    async def ask(self, what: str, *args: Any, deadline_s: float = 0.0) -> Any:
        """What becomes of a command to the patient: the result, or the error."""
        try:
            return await self.manager.command("patient", Execute(what, args), max(deadline_s, self.deadline_s))
        except Exception as error:  # noqa: BLE001  the test looks at whatever came
            return error

    async def read(self) -> Any:
        try:
            return await self.manager.command("patient", ReadChannel("power"), 1.0 if self.timed else PATIENCE_S)
        except Exception as error:  # noqa: BLE001  the test looks at whatever came
            return error

    @property
    def status(self) -> InstrumentStatus:
        return next(status for status in self.manager.instruments() if status.id == "patient")

    async def recovers(self, limit_s: float = 4.0) -> None:
        """It reads its device again, and its stream goes on."""
        ends, answer = Deadline(limit_s if self.timed else 3 * PATIENCE_S), None
        while not hasattr(answer, "value"):
            assert not ends.passed, f"it did not recover: {answer!r}; {self.status}"
            await pause(0.005)
            answer = await self.read()
        last = self.heard[-1][1] if self.heard else -1
        while not self.heard or self.heard[-1][1] <= last:
            assert not ends.passed, f"its stream did not go on: {self.status}"
            await pause(0.005)

    # ---- everybody

    async def endure(self, strike: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> int:
        """Peace and strikes in turn, until one strike was quiet enough for both others; how many there were.

        One, where nobody is timed.
        """
        for number in range(1, rounds + 1):
            for beat in self.beats.values():
                beat.begin(beat.peace)
            await pause(PEACE_S)
            for beat in self.beats.values():
                beat.begin(beat.strikes)
            begun_s = monotonic_s()
            await strike()
            await pause(max(0.0, STRIKE_S - (monotonic_s() - begun_s)))
            if not self.timed:
                return number
            if number < rounds and all(beat.undisturbed for beat in self.beats.values()):
                return number
        return rounds

    @asynccontextmanager
    async def nursed(self) -> AsyncIterator[Ward]:
        """Start it, have both healthy ones asked all the time, and judge at the end what was lost, and by whom."""
        before = {name: self._counted(name) for name in self.devices}
        numbers: dict[str, list[int]] = {"steady": [], "witness": [], "patient": []}
        v2 = self.manager.v2_data.subscribe("judge v2", capacity=ALL, policy=Policy.DROP_NEWEST)
        v4 = self.manager.v4_data.subscribe("judge v4", capacity=ALL, policy=Policy.DROP_NEWEST)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.manager.shutdown, 5.0)
            await self.manager.start()
            gathering = asyncio.create_task(self._gather(v2, v4, numbers))
            stack.push_async_callback(_ended, gathering)
            beating = [asyncio.create_task(beat.run()) for beat in self.beats.values()]
            for task in beating:
                stack.push_async_callback(_ended, task)
            await self.recovers(8.0)
            yield self
            for task in beating:
                await _ended(task)
            await self.manager.command("witness", Execute("finish"), PATIENCE_S)
            await self.manager.command("witness", StopAcquisition(), PATIENCE_S)
            await self.manager.command("steady", StopAcquisition(), PATIENCE_S)
            made = {name: self._counted(name) - before[name] for name in self.beats}  # these have stopped
            limit = Deadline(PATIENCE_S)
            while not limit.passed and any(len(numbers[name]) < made[name] for name in made):
                await pause(0.01)
            await pause(0.1)  # nothing may come that was not made
            await _ended(gathering)
            self._made = {name: self._counted(name) - before[name] for name in self.devices}
            self._judge(numbers)

    async def _gather(self, v2: Any, v4: Any, numbers: dict[str, list[int]]) -> None:
        while True:
            for one in await v2.get_many(ALL, 0.01):
                self._note(one, "v2", numbers)
            for batch in await v4.get_many(ALL, 0.01):
                for one in scalars_of(batch):
                    self._note(one, "v4", numbers)

    def _note(self, one: Any, hub: str, numbers: dict[str, list[int]]) -> None:
        """Each stream on the hub of its own side: what comes over the bridge is another test's business."""
        if one.channel != "power" or one.origin != hub:
            return
        numbers[one.instrument].append(one.sequence)
        if one.instrument == "patient":
            self.heard.append((monotonic_s(), one.sequence))

    def _counted(self, name: str) -> int:
        return self.devices[name].report()["produced"].get("D", 0)

    def _judge(self, numbers: dict[str, list[int]]) -> None:
        books = self.manager.ledgers()
        assert all(book["balanced"] for book in books.values()), books
        for name, beat in self.beats.items():
            assert not beat.wrong, f"{name} gave a wrong answer: {beat.wrong[:3]}"
            assert beat.undisturbed or not self.timed, (
                f"{name} was disturbed: p99 in peace and beside the fault, in s: {beat.figures_s}"
            )
            assert numbers[name] == list(range(self._made[name])), f"{name} lost something"
            hub = books["v2" if name == "steady" else "v4"]
            assert _produced(hub, f"{name}.power") == self._made[name]
        assert _produced(books["worker v2.steady"], "steady.power") == self._made["steady"]
        self._judge_patient(numbers["patient"], books[f"worker {self.worker}"])

    @property
    def worker(self) -> str:
        return "v2-process" if self.runtime == "v2" else "v4.patient"

    def _judge_patient(self, numbers: list[int], book: dict[str, Any]) -> None:
        assert numbers == sorted(set(numbers)), "a sequence number of the patient's was used twice"
        (row,) = [row for row in book["rows"] if row["stream"] == "patient.power"]
        lost = row["dropped"].get("worker died", 0)
        assert set(row["dropped"]) <= {"worker died"}, row
        assert row["produced"] == row["delivered"] + lost + row["in_flight"], row
        assert row["delivered"] >= len(numbers)
        assert row["produced"] <= self._made["patient"], "it claims more than its device has made"


def _produced(book: dict[str, Any], stream: str) -> int:
    return sum(streams.get(stream, 0) for streams in book["produced"].values())


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture(scope="module")
def devices() -> Iterator[dict[str, sim.SimProcess]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(sim.launch("newport1830c")) for name in ("patient", "steady", "witness")}


@pytest.fixture
async def ward(
    request: pytest.FixtureRequest, devices: dict[str, sim.SimProcess], tmp_path: Path
) -> AsyncIterator[Callable[..., AbstractAsyncContextManager[Ward]]]:
    """Makes a Ward, to be entered; in a test that runs alone, one in which everybody is timed."""
    timed = request.node.get_closest_marker("alone") is not None
    gc.collect()
    gc.freeze()  # else the collector looks through all of pytest, for 70 ms, while answers are timed
    yield lambda runtime, **patient: Ward(devices, tmp_path / "orders", runtime, timed, **patient).nursed()
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture(autouse=True)
def faults_are_seen(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test whose faults were no line in the log, or moved no figure; see `fault_table`."""
    names, by = faults_of(request.node)
    logger = logging.getLogger("duodaq")
    before = logger.level
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        witness = FaultWatch(() if by else names, patch)
        yield
        witness.end()
    logger.setLevel(before)
    if request.node.stash.get(PASSED, False) and (complaints := witness.complaints()):
        pytest.fail("; ".join(complaints), pytrace=False)
