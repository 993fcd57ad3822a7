"""Workers that do not end as they should, or end for want of memory; and the one row that a side has in the report."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_table import PEACE

from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError, InstrumentError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentStatus,
    LabDefinition,
    Outcome,
    RuntimeDefinition,
)
from duodaq.workers import ProcessGroup, ProcessHosted

PATIENTS = Path(__file__).with_name("patients.py")
MEMORY_BYTES = 100_000_000


@asynccontextmanager
async def lab(*instruments: InstrumentDefinition) -> AsyncIterator[DualRuntimeManager]:
    where = {name: RuntimeDefinition(name, "process", MEMORY_BYTES) for name in ("v2", "v4")}
    manager = DualRuntimeManager(LabDefinition("ends", instruments=instruments, **where))
    await manager.start()
    try:
        yield manager
    finally:
        await manager.shutdown(5.0)


def blocker(name: str = "it", **facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition(name, "v2", f"{PATIENTS}:Blocker", **facts)


def status(manager: DualRuntimeManager) -> InstrumentStatus:
    return next(one for one in manager.instruments() if one.id == "it")


async def until(condition: Any, manager: DualRuntimeManager, limit_s: float = 5.0) -> None:
    limit = Deadline(limit_s)
    while not condition():
        assert not limit.passed, status(manager)
        await pause(0.005)


# ---- memory


@pytest.mark.fault("memory bomb")
async def test_a_memory_error_names_the_instrument_and_the_limit() -> None:
    async with lab(blocker(deadline_s=10.0)) as manager:
        with pytest.raises(InstrumentError) as caught:
            await manager.command("it", Execute("take_more_than_there_is"))
        assert (caught.value.instrument, caught.value.command) == ("it", "take_more_than_there_is")
        said = str(caught.value)
        assert "MemoryError: its worker may take 100 MB more" in said
        assert "memory = … in [runtimes.v2]" in said
        assert isinstance(caught.value.__cause__, MemoryError)
        assert await manager.command("it", GetParameter("serial")) == "none"
        assert status(manager).restarts == 0


@pytest.mark.fault("memory bomb")
async def test_a_worker_with_no_memory_left_to_hear_ends_soon_and_is_replaced_with_the_cause() -> None:
    async with lab(blocker(deadline_s=20.0, kill_after_s=20.0)) as manager:
        with pytest.raises(DeliveryError) as caught:
            await manager.command("it", Execute("keep_all_there_is", (15.0,)))
        assert caught.value.fate == "unknown"
        assert "no memory left" in str(caught.value)
        assert "memory = … in [runtimes.v2]" in str(caught.value)
        assert await manager.command("it", GetParameter("serial"), 5.0) == "none"


# ---- a process that does not end


def group_of(manager: DualRuntimeManager) -> ProcessGroup:
    (host,) = manager._sides["v2"]._hosted.values()
    assert isinstance(host, ProcessHosted)
    return host.group


class Unkillable:
    """A worker as one in an uninterruptible call of its kernel is: frozen, and deaf to SIGKILL."""

    def __init__(self, manager: DualRuntimeManager, monkeypatch: pytest.MonkeyPatch) -> None:
        worker = group_of(manager).current
        assert worker is not None
        self._child = worker.child
        self.pid = worker.child.pid
        self._patch = monkeypatch
        monkeypatch.setattr(worker.child, "kill", lambda: None)
        os.kill(self.pid, signal.SIGSTOP)
        worker._pipe.end("a test")

    def die(self) -> None:
        self._patch.undo()
        self._child.kill()


@pytest.mark.fault("SIGKILL", "worker does not end")
async def test_nobody_takes_over_before_a_worker_that_was_killed_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    async with lab(blocker(deadline_s=10.0)) as manager:
        blocked = asyncio.create_task(manager.command("it", Execute("block", (9.0, str(begun)))))
        waiting = asyncio.create_task(manager.command("it", Execute("block", (0.0,))))
        await until(begun.exists, manager)
        old = Unkillable(manager, monkeypatch)
        try:
            for error in await asyncio.gather(blocked, waiting, return_exceptions=True):
                assert isinstance(error, DeliveryError)
                assert error.fate == "unknown"  # it may yet begin what waits
            await until(lambda: "does not end" in status(manager).message, manager)
            assert str(old.pid) in status(manager).message
            await pause(0.3)
            assert status(manager).pid is None
        finally:
            old.die()
        assert await manager.command("it", GetParameter("serial"), 5.0) == "none"
        await until(lambda: status(manager).pid not in (None, old.pid), manager)
        assert "does not end" not in status(manager).message


@pytest.mark.fault("worker does not end", "leaked")
async def test_a_worker_that_does_not_end_is_reported_as_leaked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab(blocker()) as manager:
        old = Unkillable(manager, monkeypatch)
        try:
            await until(lambda: "does not end" in status(manager).message, manager)
            report = await manager.shutdown(3.0)
        finally:
            old.die()
        (row,) = [one for one in report.components if one.component == "worker.v2-process"]
        assert row.outcome is Outcome.LEAKED
        assert str(old.pid) in row.why


# ---- the report


@pytest.mark.fault(by=PEACE)
async def test_a_side_has_one_row_in_the_report_however_many_workers_it_had() -> None:
    async with lab(blocker(), blocker("two", worker="own"), blocker("three", worker="thread")) as manager:
        report = await manager.shutdown(5.0)
        names = [one.component for one in report.components]
        assert names.count("v2") == 1
        assert len(names) == len(set(names))
        assert report.clean


@pytest.mark.fault("SIGKILL", "does not start")
async def test_a_replacement_that_is_required_and_does_not_start_is_tried_again(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    facts: dict[str, Any] = {"args": {"orders": str(orders)}, "required": True}
    it = InstrumentDefinition("it", "v2", f"{PATIENTS}:Obedient", **facts)
    async with lab(it) as manager:
        await asyncio.to_thread(orders.touch)
        pid = status(manager).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: "did not start" in status(manager).message, manager)
        await asyncio.to_thread(orders.unlink)
        await until(lambda: status(manager).state == "ready", manager)
        assert await manager.command("it", Execute("who")) != pid


@pytest.mark.fault("SIGKILL", "does not start", "crash limit")
async def test_a_replacement_that_is_required_and_never_starts_fails_after_its_restarts(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    facts: dict[str, Any] = {"args": {"orders": str(orders)}, "required": True}
    it = InstrumentDefinition("it", "v2", f"{PATIENTS}:Obedient", **facts)
    async with lab(it) as manager:
        await asyncio.to_thread(orders.touch)
        pid = status(manager).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not status(manager).recoverable, manager, 15.0)
        assert status(manager).restarts == 5
        assert "does not answer" in status(manager).message
        assert group_of(manager).current is None
        with pytest.raises(DuodaqError, match="has failed"):
            await manager.command("it", Execute("who"))
