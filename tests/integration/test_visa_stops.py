"""Ports behind a VISA library: a stop arrives and stays, a busy board is waited for, and an answer has one reader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from duodaq import clock, sim
from duodaq.config import load_lab
from duodaq.config._notes import describe
from duodaq.drivers import codec
from duodaq.errors import ConfigError, PortLostError, PortTimeoutError
from duodaq.model import PortDefinition, VirtualDefinition, VisaDefinition
from duodaq.ports import BlockingSession, Broker
from duodaq.workers import spawn_port_worker

pytest.importorskip("pyvisa")

LIBRARY = Path(__file__).parent / "visa_library"
OFF = b"OUTP OFF\n"
Bench = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(LIBRARY))
    return tmp_path / "calls.log"


@pytest.fixture
def bench(log: Path) -> Bench:
    """A broker with these resources as ports p0, p1 …"""

    @asynccontextmanager
    async def make(
        *resources: str, spoken: str | None = "scpi", timeout_s: float = 1.0, library: str = ""
    ) -> AsyncIterator[Broker]:
        broker = Broker(spawn_worker=spawn_port_worker)
        for number, resource in enumerate(resources):
            visa = VisaDefinition(resource, library or f"{log}@scripted")
            idle_ms = None if spoken else 20.0
            definition = PortDefinition(f"p{number}", visa=visa, codec=spoken, timeout_s=timeout_s, idle_ms=idle_ms)
            await broker.add(definition, codec(spoken) if spoken else None)
            await broker.open(f"p{number}", 10.0)
        try:
            yield broker
        finally:
            await broker.aclose()

    return make


async def ask(
    broker: Broker, question: bytes, port: str = "p0", timeout_s: float | None = None, holder: str = "test"
) -> bytes:
    return await broker.port(port).exchange(question, holder=holder, timeout_s=timeout_s)


def calls(log: Path, address: str = "") -> list[str]:
    """What was done with a device, in order: ``write …``, ``clear``."""
    lines = [line.split(" ", 5) for line in log.read_text().splitlines() if address in line]
    done = [line[-1] if line[0] == "begin" else line[0] for line in lines if line[0] in ("begin", "clear")]
    return [what for what in done if what != "read"]


async def until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not true():
            await clock.pause(0.002)


async def test_stop_all_reaches_a_board_that_a_neighbour_reads_longer_than_the_timeout(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR", "GPIB0::10::INSTR", timeout_s=0.2) as broker:
        reading = asyncio.create_task(ask(broker, b"NEVER?\n", "p1", timeout_s=0.7))
        await until(lambda: "NEVER" in log.read_text())
        stopped = await broker.stop_all({"p0": OFF, "p1": OFF})
        assert [type(said) for said in stopped.values()] == [int, int]
        with pytest.raises(PortTimeoutError):
            await reading
    assert calls(log, "::9::")[-1] == calls(log, "::10::")[-1] == f"write {OFF!r}"


async def test_a_stop_goes_before_all_who_wait_for_its_board(bench: Bench, log: Path) -> None:
    async with bench(*(f"GPIB0::{number}::INSTR" for number in range(1, 6)), timeout_s=5.0) as broker:
        busy = [asyncio.create_task(ask(broker, b"TENTH?\n", f"p{number}")) for number in (0, 1, 2, 3, 4)]
        await until(lambda: "TENTH" in log.read_text())
        await clock.pause(0.02)  # all of them wait for the first
        assert await broker.stop("p4", OFF)  # whose own exchange is among those that wait
        assert len(calls(log, "begin")) <= 3
        answers = await asyncio.gather(*busy)
    assert answers == [b"TENTH!\n"] * 5
    written = [what for what in calls(log) if "write" in what]
    assert written[1] == f"write {OFF!r}"


async def test_a_latched_stop_that_a_dead_worker_took_along_is_sent_when_it_is_back(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR", "GPIB0::10::INSTR", timeout_s=5.0) as broker:
        reading = asyncio.create_task(ask(broker, b"BROKEN?\n", "p1"))
        hanging = asyncio.create_task(ask(broker, b"TENTH?\n", "p0"))
        await asyncio.gather(reading, hanging, return_exceptions=True)
        await until(lambda: all(status.state == "open" for status in broker.status()))
        reading = asyncio.create_task(ask(broker, b"TENTH?\n", "p1"))
        await until(lambda: log.read_text().count("TENTH") == 2)
        stopping = asyncio.create_task(broker.stop_all({"p0": OFF}))
        await clock.pause(0.02)
        os.kill(int(broker.status()[0].worker.rpartition(" ")[2]), signal.SIGKILL)
        assert isinstance((await stopping)["p0"], PortLostError)
        with pytest.raises(PortLostError):
            await reading
        await until(lambda: "OUTP OFF" in log.read_text())
        broker.reset_latch("test")


async def test_a_stop_that_the_device_does_not_take_is_not_reported_written(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        with pytest.raises(PortTimeoutError, match="did not take it"):
            await broker.stop("p0", b"DEAF\n")
        with pytest.raises(PortTimeoutError, match="did not take it"):
            await ask(broker, b"DEAF\n")
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"


async def test_a_stop_after_a_broken_exchange_is_written_behind_the_clear(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        reading = asyncio.create_task(ask(broker, b"NEVER?\n", timeout_s=0.2))
        await until(lambda: "NEVER" in log.read_text())
        assert await broker.stop("p0", OFF)
        with pytest.raises(PortTimeoutError):
            await reading
        assert await ask(broker, b"NEXT?\n") == b"NEXT!\n"
    assert calls(log)[1:4] == ["write b'NEVER?\\n'", "clear", f"write {OFF!r}"]


@pytest.mark.parametrize("kind", ["hislip", "vxi11"])
async def test_a_stop_is_on_an_instrument_that_was_cleared_for_it(bench: Bench, kind: str) -> None:
    pytest.importorskip("pyvisa_py")
    with sim.launch("scpi-dmm", model="34465A", **{kind: True}) as meter:
        async with bench(meter.address, library="@py", timeout_s=0.3) as broker:
            for command in (b"SENS:VOLT:DC:NPLC 10\n", b"TRIG:SOUR BUS\n", b"INIT\n"):
                await ask(broker, command)
            asking = asyncio.create_task(ask(broker, b"*OPC?\n"))
            await clock.pause(0.05)
            assert await broker.stop("p0", b"SENS:VOLT:DC:NPLC 0.2\n")
            with pytest.raises(PortTimeoutError):
                await asking
            assert float(await ask(broker, b"SENS:VOLT:DC:NPLC?\n")) == 0.2
            assert await ask(broker, b"SYST:ERR?\n") == b'+0,"No error"\n'


async def test_a_lost_port_of_a_busy_board_comes_back(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR", "GPIB0::10::INSTR", timeout_s=2.0) as broker:
        assert await ask(broker, b"*IDN?\n") == b"*IDN!\n"
        is_over = False

        async def busy(holder: str) -> None:
            while not is_over:
                await ask(broker, b"TENTH?\n", "p1", holder=holder)

        neighbours = [asyncio.create_task(busy(holder)) for holder in ("a", "b")]
        with pytest.raises(PortLostError):
            await ask(broker, b"BROKEN?\n")
        await until(lambda: broker.status()[0].state == "open", 3.0)
        is_over = True
        await asyncio.gather(*neighbours)
        asked = await asyncio.to_thread(log.read_text)
        assert asked.count("IDN") == 3  # once to spoil what may be half there, once to know who it is


@pytest.mark.parametrize(
    ("question", "length"), [(b"TWO?\n", len(b"first\nsecond\n")), (b"MANY?\n", 40000), (b"EXACT?\n", 16384)]
)
async def test_a_reply_ends_where_its_message_does(bench: Bench, question: bytes, length: int) -> None:
    async with bench("GPIB0::9::INSTR") as broker:
        asking = asyncio.create_task(ask(broker, question))
        after = asyncio.create_task(ask(broker, b"AFTER?\n", holder="another"))
        assert len(await asking) == length
        assert await after == b"AFTER!\n"
        assert broker.status()[0].stray_bytes == 0
        assert broker.status()[0].resyncs == 0


async def test_a_library_that_loses_the_end_of_a_full_read_costs_time_and_no_reply(bench: Bench) -> None:
    async with bench("GPIB0::28::INSTR", timeout_s=0.3) as broker:
        asking = asyncio.create_task(ask(broker, b"EXACT?\n"))
        after = asyncio.create_task(ask(broker, b"AFTER?\n", holder="another", timeout_s=2.0))
        with contextlib.suppress(PortTimeoutError):  # its clock and the library's are set to the same moment
            assert len(await asking) == 16384
        assert await after == b"AFTER!\n"


async def test_a_vxi11_reply_that_just_fills_a_read_leaves_nothing_to_be_read(bench: Bench) -> None:
    pytest.importorskip("pyvisa_py")
    with sim.launch("scpi-scope", vxi11=True) as scope:
        async with bench(scope.address, library="@py", timeout_s=1.0) as broker:
            for command in (b":WAV:FORM BYTE\n", b":DIG CHAN1\n", b":WAV:POIN 16373\n"):
                await ask(broker, command)
            await until_acquired(broker)
            asking = asyncio.create_task(ask(broker, b":WAV:DATA?\n"))
            after = asyncio.create_task(ask(broker, b"*OPC?\n", holder="another"))
            assert len(await asking) == 16384
            assert await after == b"1\n"
            assert await ask(broker, b"SYST:ERR?\n") == b'+0,"No error"\n'


async def until_acquired(broker: Broker) -> None:
    assert await ask(broker, b"*OPC?\n", timeout_s=3.0) == b"1\n"


async def test_without_codec_an_answer_reaches_who_asked_and_nobody_else(bench: Bench) -> None:
    async with bench("GPIB0::9::INSTR", spoken=None) as broker:
        one, two = broker.session("p0", "one"), broker.session("p0", "two")

        def drive() -> tuple[bytes, bytes]:
            one.write(b"MINE?\n")
            clock.block(0.06)  # longer than idle_ms
            two.write(b"YOURS?\n")
            return two.read_until(b"\n", 0.5), one.read_until(b"\n", 0.5)

        assert await asyncio.to_thread(drive) == (b"YOURS!\n", b"MINE!\n")
        one.close()
        two.close()


async def test_without_codec_a_question_that_is_not_answered_is_cleared_away(bench: Bench, log: Path) -> None:
    async with bench("GPIB0::9::INSTR", spoken=None, timeout_s=0.2) as broker:
        one, two = broker.session("p0", "one"), broker.session("p0", "two")

        def converse(session: BlockingSession, question: bytes) -> bytes:
            with session.call():
                session.write(question)
                return session.read_until(b"\n")

        with pytest.raises(PortTimeoutError):
            await asyncio.to_thread(converse, one, b"NEVER?\n")
        assert await asyncio.to_thread(converse, two, b"NEXT?\n") == b"NEXT!\n"
        one.close()
        two.close()
    assert calls(log)[1:] == ["write b'NEVER?\\n'", "clear", "write b'NEXT?\\n'"]


async def test_a_virtual_port_on_a_visa_port_without_codec_is_refused(tmp_path: Path) -> None:
    broker = Broker()
    definition = PortDefinition(
        "p", visa=VisaDefinition("GPIB0::9::INSTR"), idle_ms=20.0, virtual=VirtualDefinition(tcp="127.0.0.1:0")
    )
    with pytest.raises(ConfigError, match="needs a codec"):
        await broker.add(definition)
    file = tmp_path / "lab.toml"
    file.write_text('[ports.x]\nvisa = "GPIB0::9::INSTR"\nidle_ms = 20\nvirtual = { tcp = 5030 }\n')
    with pytest.raises(ConfigError, match="needs a codec on a VISA port"):
        load_lab(file)


def test_check_tells_the_longest_read_of_a_board(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(
        '[ports.x]\nvisa = "GPIB0::9::INSTR"\ncodec = "scpi"\ntimeout = "1 s"\n'
        '[ports.y]\nvisa = "GPIB::10::INSTR"\ncodec = "scpi"\ntimeout = "60 s"\n'
        '[ports.z]\nvisa = "GPIB1::10::INSTR"\ntimeout = "3 s"\n'
    )
    notes = "\n".join(describe(load_lab(file)))
    assert "a stop waits for the read in hand of x or y, at most 60 s (the timeout of y)" in notes
    assert "a stop waits for the read in hand of y or x, at most 60 s (its timeout)" in notes
    assert "a stop waits for the read in hand, at most 3 s (its timeout)" in notes
    assert 'port z: without a codec only what has a "?"' in notes
