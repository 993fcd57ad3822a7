"""A shutdown in the middle of work: one of the twelve."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from duodaq.clock import pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import LifecycleError
from duodaq.model import AxisDefinition, Execute, InstrumentDefinition, PollDefinition, PortDefinition, StartAcquisition
from duodaq.schema import stream_of
from duodaq.sim import SimProcess, TableProcess
from duodaq.storage import Recorder
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._endpoints import Reading, batches_in, readings_in
from duodaq.testing.coexistence._evidence import Evidence
from duodaq.testing.coexistence._late_work import (
    Clerk,
    Dialler,
    Dozer,
    Ended,
    Recording,
    ask_directly,
    ended,
    of_fate,
    plain_rows,
)
from duodaq.testing.coexistence._proof import proves

BUDGET_S = 2.5
_FAR_MM, _NEAR_MM = 20.0, 0.4
_OF_V4 = ("stage.x", "stage.y")


async def test_graceful_shutdown_with_active_ops(bench: Bench) -> None:
    """Each accepted operation ends with one fate that the devices confirm; short ones complete; files are whole."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    (await bench.table()).set_shutter(True)
    work = LateWork(bench.evidence("work"))
    manager = bench.manager(work.instruments(bench), work.ports(bench, meter_sim, stage_sim))
    with tempfile.TemporaryDirectory(prefix="duodaq-recording-") as directory:
        recording = Recording(Recorder(Path(directory) / "run", manager.v4_data))
        await manager.start()
        await recording.recorder.start()
        manager.attach("recording", recording)
        witness = manager.v4_data.subscribe("witness", capacity=65536, streams=_OF_V4)
        operations = await work.begin(manager, await bench.table())
        begun = {kind: work.evidence.count(kind) for kind in ("dial", "file")}
        shutdown = asyncio.ensure_future(manager.shutdown(BUDGET_S))
        await pause(0.02)
        late = await outcome(manager.command("clerk", Execute("file", (99,))))
        report = await shutdown
        finished = await _all_ended(operations)
        _check_short_ones(finished, begun)
        refused = isinstance(late, LifecycleError) and 99 not in work.really("file")
        proves("late work is refused", refused, "nothing new is accepted", got=late)
        _check_v2_state(finished, work, meter_sim)
        _check_v4_state(finished, work, stage_sim)
        await _check_motion(finished, await bench.table(), stage_sim)
        _check_files(Path(directory) / "run", work.said, batches_in(witness))
        witness.close()
        proves("budget", report.took_s <= BUDGET_S + 0.1, "and all in time", took_s=report.took_s)


class LateWork:
    """The instruments and the operations that a shutdown meets."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @property
    def said(self) -> list[Reading]:
        """What the meter said."""
        return readings_in(self.evidence)

    def really(self, kind: str) -> list[int]:
        """The numbers that were really dialled or filed, in order."""
        return [note["number"] for note in self.evidence.read(kind)]

    def instruments(self, bench: Bench) -> list[InstrumentDefinition]:
        power = PollDefinition("power", 0.005, "W", call="read")
        y = AxisDefinition("y", 2, "mm", (-10.0, 25.0))
        stage = bench.stage()
        args = {"evidence": self.evidence.path}
        return [
            bench.own_class("dialler", Dialler, "meter", polls=(power,), options={"acquire": False}, args=args),
            bench.own_class("dozer", Dozer, "meter", deadline_s=None, args=args),
            replace(stage, axes=(*stage.axes, y), args={"poll_s": 0.02}),
            bench.own_actor("clerk", Clerk, "stage", args=args),
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
        both = ("dial", "file")
        await until(lambda: table.state().moving.get(1, False) and all(map(self.evidence.count, both)), 3.0, 0.01)
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


def _check_short_ones(finished: list[Ended], begun: dict[str, int]) -> None:
    """The last one begun may be in hand when the shutdown comes; it ends, and so do the next."""
    fates = {operation.name: operation.fate for operation in finished}
    proves("short ones complete", fates["near"] == "done", "the short move", got=fates["near"])
    for kind, count in begun.items():
        done, least = of_fate(_kind(finished, kind), "done"), min(count + 2, 20)
        proves("short ones complete", len(done) >= least, f"those that were next to {kind}", done=done, least=least)
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
    _check_effects("dial", finished, work.really("dial"), meter_sim.report()["settings"].get("W", 0))
    dozed = work.evidence.count("dozed")
    proves("fates agree", dozed > 0, "the long one had begun", read=dozed)
    doze = next(operation for operation in finished if operation.name == "doze")
    proves("fates agree", doze.fate == "unknown", "of the one cut off nobody can say more", got=doze)


def _check_v4_state(finished: list[Ended], work: LateWork, stage_sim: SimProcess) -> None:
    velocity = ask_directly(stage_sim.address, b"3VA?\r")
    _check_effects("file", finished, work.really("file"), int(float(velocity or -1)))


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


def _check_files(directory: Path, said: list[Reading], published: list[pa.RecordBatch]) -> None:
    power = plain_rows(directory, "dialler.power")
    values = power.get("value", [])
    whole = values == [r.value for r in said] and len(values) > 0
    proves("files complete", whole, "all that V2 read", rows=len(values), read=len(said))
    streams = {name: plain_rows(directory, name).get("sequence", []) for name in _OF_V4}
    for name, numbers in streams.items():  # of each, for whichever was written last
        of = sum(batch.num_rows for batch in published if stream_of(batch) == name)
        proves("files complete", len(numbers) == of > 0, "all that V4 published", stream=name, rows=len(numbers), of=of)
    for numbers in (power["sequence"], *streams.values()):
        proves("files complete", numbers == list(range(len(numbers))), "without a gap", last=numbers[-1:])
