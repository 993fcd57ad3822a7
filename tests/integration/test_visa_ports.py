"""Ports behind a VISA library that hangs, dies, is late or is shared: what the broker does, on a scripted one."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from duodaq import clock
from duodaq.drivers import codec
from duodaq.errors import ConfigError, DeliveryError, PortBusyError, PortLostError, PortOpenError, PortTimeoutError
from duodaq.model import Outcome, PortDefinition, VisaDefinition
from duodaq.ports import Broker, Idle, Lines, Terminated, meaning, status_query_of, worker_key
from duodaq.ports import _visa_process as visa_process
from duodaq.workers import spawn_port_worker

pytest.importorskip("pyvisa")

LIBRARY = Path(__file__).parent / "visa_library"
Bench = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(LIBRARY))
    return tmp_path / "calls.log"


@pytest.fixture
def bench(log: Path) -> Bench:
    """A broker with these resources as ports p0, p1 …"""

    @asynccontextmanager
    async def make(*resources: str, spoken: str | None = "scpi", timeout_s: float = 1.0) -> AsyncIterator[Broker]:
        broker = Broker(spawn_worker=spawn_port_worker)
        for number, resource in enumerate(resources):
            visa = VisaDefinition(resource, f"{log}@scripted")
            idle_ms = None if spoken else 20.0
            definition = PortDefinition(f"p{number}", visa=visa, codec=spoken, timeout_s=timeout_s, idle_ms=idle_ms)
            await broker.add(definition, codec(spoken) if spoken else None)
            await broker.open(f"p{number}", 10.0)
        try:
            yield broker
        finally:
            reports = await broker.aclose()
            assert [report.why for report in reports] == [""] * len(resources)

    return make


async def ask(broker: Broker, question: bytes, port: str = "p0", timeout_s: float | None = None) -> bytes:
    return await broker.port(port).exchange(question, holder="test", timeout_s=timeout_s)


def pid_of(broker: Broker, number: int = 0) -> int:
    return int(broker.status()[number].worker.rpartition(" ")[2])


async def until_open(broker: Broker, limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while any(status.state != "open" for status in broker.status()):
            await clock.pause(0.005)


def calls(log: Path) -> list[list[str]]:
    return [line.split(" ", 5) for line in log.read_text().splitlines()]


async def test_a_question_is_answered_and_the_library_runs_in_another_process(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        assert await ask(broker, b"HELLO?\n") == b"HELLO!\n"
        status = broker.status()[0]
        assert status.worker.startswith("pyvisa-scripted")
        assert f"in process {pid_of(broker)}" in status.worker
        assert {int(line[3]) for line in calls(log)} == {pid_of(broker)} != {os.getpid()}
        pid = pid_of(broker)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_end_ends_a_reply_that_has_no_newline(bench: Bench) -> None:
    async with bench("USB0::1::2::3::INSTR") as broker:
        assert await ask(broker, b"BARE?\n") == b"no newline, END alone"
        assert await broker.port("p0").exchange(b"BARE?\n", holder="t", reply=Idle(500)) == b"no newline, END alone"
        with pytest.raises(PortTimeoutError):  # a framing that END cannot complete is not made complete by it
            await broker.port("p0").exchange(b"BARE?\n", holder="t", reply=Lines(1), timeout_s=0.1)
        assert await ask(broker, b"THEN?\n") == b"THEN!\n"


async def test_a_message_longer_than_a_read_comes_whole(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        block = await ask(broker, b"BIG?\n")
        assert len(block) == 1500000 + 10
        assert block.endswith(bytes(96) + b"\n")


async def test_a_late_reply_is_cleared_away_and_answers_nobody(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        opened = sum(line[0] == "clear" for line in calls(log))
        assert opened == 1  # of whatever an owner before may have left
        with pytest.raises(PortTimeoutError):
            await ask(broker, b"NEVER?\n", timeout_s=0.1)
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"
        assert sum(line[0] == "clear" for line in calls(log)) == 2
        assert broker.status()[0].resyncs == 1


async def test_a_cancelled_exchange_is_cleared_away(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        asking = asyncio.create_task(ask(broker, b"SLOW?\n"))
        while not any("read" in line[-1] for line in calls(log)):
            await clock.pause(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"
        assert sum(line[0] == "clear" for line in calls(log)) == 2


async def test_a_dead_worker_is_a_lost_port_that_comes_back(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        before = pid_of(broker)
        with pytest.raises(PortLostError, match=f"port worker {before} ended"):
            await ask(broker, b"DIE?\n")
        await until_open(broker)
        assert await ask(broker, b"BACK?\n") == b"BACK!\n"
        assert pid_of(broker) != before
        os.kill(pid_of(broker), signal.SIGKILL)  # while nobody asks
        async with asyncio.timeout(10):
            while broker.status()[0].reconnects < 2:
                await clock.pause(0.005)
        assert await ask(broker, b"BACK?\n") == b"BACK!\n"


async def test_a_read_that_never_returns_is_ended_with_its_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visa_process, "GRACE_S", 0.2)
    async with bench("GPIB0::9::INSTR", timeout_s=0.2) as broker:
        before, begun_s = pid_of(broker), clock.monotonic_s()
        with pytest.raises(PortTimeoutError):
            await ask(broker, b"HANG?\n")
        assert clock.monotonic_s() - begun_s < 5.0
        with pytest.raises(PortLostError, match="did not come back"):
            await ask(broker, b"NEXT?\n")
        await until_open(broker)
        assert pid_of(broker) != before
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"


async def test_a_connection_that_the_library_reports_lost_comes_back(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        with pytest.raises(PortLostError, match="VI_ERROR_CONN_LOST"):
            await ask(broker, b"BROKEN?\n")
        await until_open(broker)
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"


async def test_all_of_one_board_is_one_worker_and_one_exchange_at_a_time(bench: Bench, log: Path) -> None:
    resources = ("GPIB0::1::INSTR", "GPIB0::2::INSTR", "GPIB::3::INSTR", "GPIB1::1::INSTR")
    async with bench(*resources, timeout_s=5.0) as broker:
        pids = [pid_of(broker, number) for number in range(4)]
        assert pids[0] == pids[1] == pids[2] != pids[3]

        async def converse(port: str) -> None:
            for number in range(8):
                question = b"SLOW%d?" % number if number % 4 == 0 else b"Q%d?" % number
                assert await ask(broker, question + b"\n", port) == question.rstrip(b"?") + b"!\n"

        await asyncio.gather(*(converse(f"p{number}") for number in range(4)))
    assert_exchanges_do_not_overlap([line for line in calls(log) if line[3] == str(pids[0])], expected=24)
    assert_exchanges_do_not_overlap([line for line in calls(log) if line[3] == str(pids[3])], expected=8)
    assert both_boards_at_once(log, pids)


def assert_exchanges_do_not_overlap(lines: list[list[str]], expected: int) -> None:
    """Every write is followed by its own end and its own read, whichever device of the board comes next."""
    work = [line for line in lines if line[0] in ("begin", "end")]
    assert len(work) == 4 * expected
    for at in range(0, len(work), 4):
        four = work[at : at + 4]
        assert [line[0] for line in four] == ["begin", "end", "begin", "end"]
        assert len({line[2] for line in four}) == 1, f"two devices at once: {four}"


def both_boards_at_once(log: Path, pids: list[int]) -> bool:
    busy: set[str] = set()
    for line in calls(log):
        if line[0] == "begin":
            busy.add(line[3])
        elif line[0] == "end":
            busy.discard(line[3])
        if len(busy) == 2:
            return True
    return False


async def test_the_devices_of_a_board_get_their_turns_in_order(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::1::INSTR", "GPIB0::2::INSTR", timeout_s=5.0) as broker:

        async def converse(port: str) -> None:
            for _ in range(10):
                await ask(broker, b"Q?\n", port)

        await asyncio.gather(converse("p0"), converse("p0"), converse("p0"), converse("p1"))
        devices = [line[2] for line in calls(log) if line[0] == "begin" and "write" in line[-1]]
    swaps = sum(one != other for one, other in itertools.pairwise(devices))
    assert swaps >= 17, devices


async def test_a_hang_on_a_board_is_the_loss_of_all_on_it_and_all_come_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visa_process, "GRACE_S", 0.1)
    async with bench("GPIB0::1::INSTR", "GPIB0::2::INSTR", timeout_s=0.2) as broker:
        with pytest.raises((PortTimeoutError, PortLostError)):
            await ask(broker, b"HANG?\n")
        async with asyncio.timeout(10):
            while any(status.reconnects < 1 for status in broker.status()):
                await clock.pause(0.005)
        assert await ask(broker, b"A?\n", "p0") == b"A!\n"
        assert await ask(broker, b"B?\n", "p1") == b"B!\n"
        assert pid_of(broker, 0) == pid_of(broker, 1)


async def test_a_close_that_does_not_come_back_is_reported_by_name_as_what_it_was(log: Path) -> None:
    broker = Broker(spawn_worker=spawn_port_worker)
    for name, resource in {"alone": "GPIB1::27::INSTR", "first": "GPIB0::27::INSTR", "last": "GPIB0::2::INSTR"}.items():
        visa = VisaDefinition(resource, f"{log}@scripted")
        await broker.add(PortDefinition(name, visa=visa, codec="scpi"), codec("scpi"))
        await broker.open(name, 10.0)
    try:
        alone, first = await broker.remove("alone", 0.4), await broker.remove("first", 0.4)
        assert (alone.component, alone.outcome, first.component) == ("port.alone", Outcome.FORCED, "port.first")
        assert "did not close GPIB1::27::INSTR within 0.2 s; its process" in alone.why
        assert alone.why.endswith("was killed")
        assert first.outcome is Outcome.LEAKED
        assert first.why.endswith("carries others, and is still at it")
    finally:
        await broker.aclose()


async def test_a_busy_board_keeps_no_exchange_beyond_its_time_and_sends_none_late(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::1::INSTR", "GPIB0::2::INSTR", timeout_s=1.0) as broker:
        slow = asyncio.create_task(ask(broker, b"NEVER?\n", "p0", 0.5))
        while not any("NEVER" in line[-1] for line in calls(log)):
            await clock.pause(0.001)
        with pytest.raises(PortTimeoutError, match="took not all"):
            await ask(broker, b"MOVE?\n", "p1", 0.05)
        with pytest.raises(PortTimeoutError):
            await slow
        assert await ask(broker, b"NEXT?\n", "p1") == b"NEXT!\n"
    assert not any("MOVE" in line[-1] for line in calls(log))


async def test_a_blocking_driver_without_codec_reads_what_it_asked(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR", spoken=None) as broker:
        session = broker.session("p0", "driver")

        def drive() -> list[bytes]:
            heard: list[bytes] = []
            for number in range(3):
                with session.call():
                    session.write(b"Q%d?\n" % number)
                    heard.append(session.read_until(b"\n"))
            session.write(b"BARE?\n")
            heard.append(session.read_message(4096)[0])
            return heard

        try:
            assert await asyncio.to_thread(drive) == [b"Q0!\n", b"Q1!\n", b"Q2!\n", b"no newline, END alone"]
        finally:
            session.close()


async def test_the_status_byte_is_read_by_a_serial_poll_under_a_lease(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        session = broker.session("p0", "driver")
        query = status_query_of(session.codec)
        assert query is not None
        async with broker.port("p0").lease("somebody else"):
            asking = asyncio.ensure_future(asyncio.to_thread(session.ask, query))
            await clock.pause(0.1)
            assert not asking.done()
        assert await asking == b"80\n"
        session.close()
        (asked,) = [record for record in broker.log("p0") if record.direction == ">" and record.holder == "driver"]
        assert meaning(broker.port("p0").codec, asked.data) == "serial poll"
    assert not any("write" in line[-1] for line in calls(log))


async def test_a_break_in_frees_its_caller_at_once_and_is_written_when_the_read_returns(
    bench: Bench, log: Path
) -> None:
    async with bench("GPIB0::9::INSTR", spoken="esp300", timeout_s=2.0) as broker:
        reading = broker.port("p0").exchange(b"NEVER?\r", holder="v2", reply=Terminated(b"\n"), timeout_s=0.5)
        asking = asyncio.create_task(reading)
        while not any("read" in line[-1] for line in calls(log)):
            await clock.pause(0.001)
        begun_s = clock.monotonic_s()
        stopping = asyncio.create_task(broker.stop("p0", b"ST\r"))
        with pytest.raises(DeliveryError, match="cut by a stop"):
            await asking
        assert clock.monotonic_s() - begun_s < 0.3
        assert await stopping
        assert clock.monotonic_s() - begun_s < 1.5
        assert await broker.port("p0").exchange(b"Q?\r", holder="v2", reply=Terminated(b"\n")) == b"Q!\n"
    written = [line[-1] for line in calls(log) if line[0] == "begin" and "write" in line[-1]]
    assert ["NEVER" in written[0], "ST" in written[1], "Q?" in written[2]] == [True] * 3


async def test_what_cannot_be_opened_says_why(bench: Bench) -> None:
    with pytest.raises(PortOpenError, match="VI_ERROR_RSRC_NFOUND"):
        async with bench("GPIB0::30::INSTR"):
            pass
    with pytest.raises(PortBusyError, match="VI_ERROR_RSRC_BUSY"):
        async with bench("GPIB0::29::INSTR"):
            pass


async def test_a_broker_that_can_make_no_processes_says_so() -> None:
    broker = Broker()
    await broker.add(PortDefinition("p", visa=VisaDefinition("GPIB0::9::INSTR")))
    with pytest.raises(PortOpenError, match="nothing here that makes worker processes"):
        await broker.open("p")
    await broker.aclose()


async def test_two_ways_out_are_one_too_many() -> None:
    broker = Broker()
    with pytest.raises(ConfigError, match="serial, tcp or visa"):
        await broker.add(PortDefinition("p", tcp="h:1", visa=VisaDefinition("GPIB0::9::INSTR")))


def test_what_shares_a_worker() -> None:
    def key(resource: str, library: str = "@py") -> str:
        return worker_key(VisaDefinition(resource, library))

    assert key("GPIB0::9::INSTR") == key("gpib::10::INSTR") != key("GPIB1::9::INSTR")
    assert key("GPIB0::9::INSTR") != key("GPIB0::9::INSTR", "@ivi")
    assert key("TCPIP0::a::INSTR") != key("TCPIP0::b::INSTR")


def test_terminated_is_ended_by_end() -> None:
    from duodaq.ports._framing import at_end

    framing = Terminated(b"\n")
    assert framing.feed(b"half") is None
    assert at_end(framing) == b"half"
    assert framing.feed(b"whole\n") == b"whole\n"
