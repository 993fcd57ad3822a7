"""Everything that can go wrong in a worker process: its own instrument suffers and comes back, nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.fault_table import NONSENSE, ONLY_LAB

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.errors import DeliveryError, DuodaqError, ReplyTimeoutError
from duodaq.model import Recover

timed = pytest.mark.alone("compares how quickly two others answer in peace and beside a fault, at the 99th percentile")
"""Of faults that differ in what is sent or said alone, one is timed; of the others nothing is lost, either."""

both = pytest.mark.parametrize("runtime", ["v2", "v4"])
Wards = Callable[..., Any]


async def until(condition: Callable[[], bool], limit_s: float = 3.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await pause(0.005)


def names_it(error: Any) -> bool:
    return isinstance(error, DuodaqError) and error.instrument == "patient" and error.command == "suffer"


@both
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param("exception", "ZeroDivisionError", marks=timed),
        ("exception without words", "WordlessError"),
    ],
)
@pytest.mark.fault("exception", "exception without words")
async def test_an_exception_costs_its_caller_only(ward: Wards, runtime: str, kind: str, name: str) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            for _ in range(3):
                error = await lab.ask("suffer", kind)
                assert name in f"{type(error).__name__} {error}"
                if runtime == "v2":
                    assert names_it(error)

        await lab.endure(strike)
        assert lab.status.restarts == 0


@both
@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("os._exit", "exited with code 3"),
        ("SIGSEGV", "SIGSEGV"),
        pytest.param("SIGKILL", "SIGKILL", marks=timed),
    ],
)
@pytest.mark.fault("os._exit", "SIGSEGV", "SIGKILL")
async def test_a_dead_worker_is_replaced_and_what_was_in_hand_is_unknown(
    ward: Wards, runtime: str, kind: str, cause: str
) -> None:
    async with ward(runtime) as lab:
        await dies(lab, kind, cause)


@both
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("garbage", marks=timed),
        "wrong message",
        "message for the other side",
        "oversized message",
        "forged measurement",
        "forged place in the ring",
        pytest.param("forged content in the ring", marks=timed),
    ],
)
@pytest.mark.fault(*NONSENSE)
async def test_a_worker_that_talks_nonsense_is_ended_and_replaced(ward: Wards, runtime: str, kind: str) -> None:
    async with ward(runtime) as lab:
        await dies(lab, kind, "its link ended: what came makes no sense")


async def dies(lab: Any, kind: str, cause: str) -> None:
    causes: list[str] = []

    async def strike() -> None:
        pid = await lab.ask("who")
        begun_s = monotonic_s()
        error = await lab.ask("suffer", kind)
        assert names_it(error), error
        assert isinstance(error, DeliveryError), error
        assert error.fate == "unknown"
        assert monotonic_s() - begun_s < lab.deadline_s
        causes.append(str(error))
        await lab.recovers()
        assert await lab.ask("who") not in (pid, None)

    strikes = await lab.endure(strike)
    assert lab.status.restarts == strikes
    assert any(cause in told for told in causes), causes  # the exit code may come too late on a busy machine


@both
@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        # a call that holds the interpreter as well is timed
        pytest.param("C call", {"deadline_s": 1.0, "kill_after_s": 1.0}, id="C call"),
        *(pytest.param(kind, {}, marks=timed, id=kind) for kind in ("busy loop", "lock-holding call", "output flood")),
    ],
)
@pytest.mark.fault("C call", "busy loop", "lock-holding call", "output flood")
async def test_a_call_that_never_returns_frees_its_caller_and_its_worker_is_replaced(
    ward: Wards, runtime: str, kind: str, limits: dict[str, float]
) -> None:
    async with ward(runtime, **limits) as lab:
        late_s: list[float] = []

        async def strike() -> None:
            pid = await lab.ask("who")
            begun_s = monotonic_s()
            error = await lab.ask("suffer", kind)
            late_s.append(monotonic_s() - begun_s - lab.deadline_s)
            assert names_it(error), error
            assert isinstance(error, ReplyTimeoutError), error
            assert error.fate == "unknown"
            await lab.recovers()
            assert await lab.ask("who") != pid

        strikes = await lab.endure(strike)
        assert min(late_s) <= 0.1 or not lab.timed
        assert lab.status.restarts == strikes


@timed
@both
@pytest.mark.fault("memory bomb")
async def test_a_memory_bomb_ends_at_its_limit(ward: Wards, runtime: str) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            error = await lab.ask("suffer", "memory bomb", deadline_s=5.0)
            memory_error = "MemoryError" in f"{type(error).__name__} {error}"
            assert memory_error or (isinstance(error, DeliveryError) and error.fate == "unknown"), error
            await lab.recovers()

        await lab.endure(strike)


@timed
@both
@pytest.mark.fault("does not start", by=ONLY_LAB)
async def test_an_instrument_that_does_not_start_again_disturbs_nobody(ward: Wards, runtime: str) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            lab.orders.touch()
            with pytest.raises(Exception, match="the device does not answer"):
                await lab.manager.restart_instrument("patient")
            assert lab.status.state == "error"
            assert "does not answer" in lab.status.message
            assert isinstance(await lab.read(), DuodaqError)
            lab.orders.unlink()
            await asyncio.gather(lab.manager.command("patient", Recover(), 2.0), return_exceptions=True)
            await lab.recovers()

        await lab.endure(strike)


@both
@pytest.mark.fault("SIGKILL", "does not start")
async def test_a_replacement_that_does_not_start_is_an_instrument_in_error_until_it_does(
    ward: Wards, runtime: str
) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            lab.orders.touch()
            await lab.ask("suffer", "SIGKILL")
            await pause(0.15)
            assert lab.status.state in ("error", "connecting"), lab.status
            lab.orders.unlink()
            await asyncio.gather(lab.manager.command("patient", Recover(), 2.0), return_exceptions=True)
            await lab.recovers()

        await lab.endure(strike)


@timed
@both
@pytest.mark.fault("unplugged")
async def test_an_unplugged_port_is_an_error_until_it_is_plugged_in_again(ward: Wards, runtime: str) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            await asyncio.to_thread(lab.device.unplug)
            for _ in range(2):
                error = await lab.read()
                assert isinstance(error, DuodaqError), error
                assert error.instrument == "patient"
            await asyncio.to_thread(lab.device.replug)
            await lab.recovers(8.0)

        await lab.endure(strike)


@both
@pytest.mark.fault("garbled")
async def test_a_garbled_port_is_an_error_until_it_is_clear_again(ward: Wards, runtime: str) -> None:
    async with ward(runtime) as lab:

        async def strike() -> None:
            await asyncio.to_thread(lab.device.fault, garble=1.0)
            for _ in range(3):
                error = await lab.read()
                assert isinstance(error, DuodaqError), error
                assert error.instrument == "patient"
            await asyncio.to_thread(lab.device.fault)
            await lab.recovers(8.0)

        await lab.endure(strike)


@both
@pytest.mark.fault("SIGKILL", "crash limit")
async def test_beyond_its_restarts_it_is_in_error_and_its_crash_action_was_written(ward: Wards, runtime: str) -> None:
    async with ward(runtime) as lab:
        port = lab.manager.broker.port("patient")
        await port.exchange(b"W800\n", holder="test")

        for _ in range(5):
            await lab.ask("suffer", "SIGKILL", deadline_s=5.0)
            await lab.recovers()
        await lab.ask("suffer", "SIGKILL", deadline_s=5.0)
        await until(lambda: lab.status.state == "error", 30.0)
        assert float(await port.exchange(b"W?\n", holder="test")) == 632.0
        status = lab.status
        assert status.state == "error"
        assert not status.recoverable
        assert "5 restarts" in status.message
        assert "SIGKILL" in status.message or "its process died" in status.message
        error = await lab.ask("who")
        assert isinstance(error, DuodaqError)
        assert "5 restarts" in str(error)
