"""Programs that know nothing of duodaq share a port: through a pty, and through TCP."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from duodaq import clock
from duodaq.errors import ConfigError, PortBusyError, PortOpenError
from duodaq.model import PortDefinition, VirtualDefinition
from duodaq.ports import Broker, GuestStatus
from duodaq.testing._scripted_port import Answer, Script, ScriptedCodec, ScriptedTransport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="virtual ptys are for Linux")


def echo(line: bytes) -> bytes | None:
    return line[:-1] + b"=ok\n" if line.endswith(b"?") else None


class Bench:
    """A broker with one scripted port, which is virtual too."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker()
        self.line = ScriptedTransport(echo)
        self.link = folder / "run" / "dev"

    async def open(
        self, script: Script = echo, *, codec: bool = True, stall_s: float = 0.3, clients: int = 32, **facts: Any
    ) -> None:
        self.line.script = script
        virtual = VirtualDefinition(str(self.link), "127.0.0.1:0", clients, stall_s)
        facts = {"timeout_s": 1.0, "options": {"quiet_s": 0.02}} | facts
        definition = PortDefinition("p", virtual=virtual, **facts)
        await self.broker.add(definition, ScriptedCodec() if codec else None, self.line)
        await self.broker.open("p")

    @property
    def tcp(self) -> tuple[str, int]:
        host, _, number = self.broker.virtual("p").addresses[1].rpartition(":")
        return host, int(number)

    @property
    def guests(self) -> tuple[GuestStatus, ...]:
        return self.broker.virtual("p").guests()

    @property
    def stray(self) -> int:
        return self.broker.status()[0].stray_bytes


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.broker.aclose()
    assert not bench.link.is_symlink()


class Device:
    """The virtual pty as a plain program opens it."""

    def __init__(self, link: Path) -> None:
        self.fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        os.set_blocking(self.fd, False)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    async def read(self, size: int, within_s: float = 5.0) -> bytes:
        data = b""
        deadline = clock.Deadline(within_s)
        while len(data) < size and not deadline.passed:
            try:
                data += os.read(self.fd, size - len(data))
            except BlockingIOError:
                await clock.pause(0.002)
        return data

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@pytest.fixture
async def device(bench: Bench) -> AsyncIterator[Callable[[], Device]]:
    opened: list[Device] = []

    def make() -> Device:
        opened.append(Device(bench.link))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


class Client:
    """A connection to the virtual TCP port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, bench: Bench) -> Client:
        return cls(*await asyncio.open_connection(*bench.tcp))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, data: bytes) -> bytes:
        self.write(data)
        return await self.line()

    async def line(self) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readline()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await clock.pause(0.002)


# --- both kinds


async def test_a_program_asks_through_the_pty_and_gets_its_answer(bench: Bench, device: Callable[[], Device]) -> None:
    await bench.open()
    program = device()
    program.write(b"A?\n")
    assert await program.read(5) == b"A=ok\n"


async def test_a_program_asks_through_tcp_and_gets_its_answer(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        assert await client.ask(b"A?\n") == b"A=ok\n"


async def test_many_programs_and_a_lease_of_ours_share_the_port_and_each_gets_its_own(
    bench: Bench, device: Callable[[], Device]
) -> None:
    await bench.open(lambda line: [Answer(line[:1], 0.001), Answer(line[1:-1] + b"=ok\n", 0.002)])

    async def through_tcp(name: str) -> None:
        async with await Client.connect(bench) as client:
            for i in range(20):
                assert await client.ask(f"{name}{i}?\n".encode()) == f"{name}{i}=ok\n".encode()

    async def through_pty() -> None:
        program = device()
        for i in range(20):
            program.write(f"pty{i}?\n".encode())
            assert await program.read(7 + len(str(i))) == f"pty{i}=ok\n".encode()

    async def ours() -> None:
        for i in range(20):
            assert await bench.broker.port("p").exchange(b"our%d?\n" % i, holder="v4.x") == b"our%d=ok\n" % i

    await asyncio.gather(*(through_tcp(name) for name in "abcd"), through_pty(), ours())
    assert bench.stray == 0


async def test_commands_written_at_once_are_answered_in_their_order(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        client.write(b"A?\nSET 1\nB?\nC?\n")
        assert [await client.line() for _ in range(3)] == [b"A=ok\n", b"B=ok\n", b"C=ok\n"]
    assert bench.line.lines == [b"A?", b"SET 1", b"B?", b"C?"]


async def test_a_command_that_comes_in_pieces_is_sent_when_it_is_whole(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        client.write(b"A")
        await until(lambda: bool(bench.guests))
        await bench.broker.port("p").exchange(b"B?\n", holder="b")
        client.write(b"?\n")
        assert await client.line() == b"A=ok\n"
    assert bench.line.lines == [b"B?", b"A?"]


async def test_a_program_ends_its_command_with_cr_alone(bench: Bench) -> None:
    await bench.open(lambda _: b"A=ok\n")
    async with await Client.connect(bench) as client:
        client.write(b"A?\r")
        await until(lambda: bytes(bench.line.written) == b"A?\r")


async def test_the_wire_log_and_the_status_name_the_program(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        await client.ask(b"A?\n")
        name = "virtual:p tcp {}:{}".format(*client.writer.get_extra_info("sockname"))
        assert [(guest.name, guest.exchanges) for guest in bench.guests] == [(name, 1)]
    written = [record for record in bench.broker.log("p") if record.data == b"A?\n"]
    assert [(record.holder, len(record.trace_id or "")) for record in written] == [(name, 32)]


# --- stop and latch


async def test_a_latched_stop_keeps_a_program_from_moving_anything(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        await bench.broker.stop_all({"p": b"ST\n"})
        client.write(b"MV1\n")
        assert await client.ask(b"A?\n") == b"A=ok\n"
        assert b"MV1" not in bench.line.lines
        assert "stop-all is latched" in caplog.text
        bench.broker.reset_latch("me")
        client.write(b"MV2\n")
        assert await client.ask(b"A?\n") == b"A=ok\n"
    assert bench.line.lines[-2:] == [b"MV2", b"A?"]


async def test_a_stop_ends_the_moves_that_a_program_had_written_before_it(bench: Bench) -> None:
    await bench.open(lambda line: Answer(b"slow\n", 0.1) if line == b"SLOW?" else echo(line))
    async with await Client.connect(bench) as client:
        client.write(b"SLOW?\nMV1\nMV2\n")
        await until(lambda: b"SLOW?" in bench.line.lines)
        os.write(client.writer.get_extra_info("socket").fileno(), b"MV3\n")  # the kernel's, unread by the broker
        await bench.broker.stop("p")
        assert await client.ask(b"A?\n") in (b"A=ok\n", b"slow\n")
        client.write(b"MV4\n")
        await until(lambda: b"MV4" in bench.line.lines)
    assert [line for line in bench.line.lines if line.startswith(b"MV")] == [b"MV4"]


async def test_a_move_that_was_half_written_before_a_stop_is_not_sent_when_it_is_whole(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        client.write(b"A?\nMV1")
        assert await client.line() == b"A=ok\n"
        await bench.broker.stop("p")
        client.write(b"0\nMV2\nB?\n")
        assert await client.line() == b"B=ok\n"
    assert [line for line in bench.line.lines if line.startswith(b"MV")] == [b"MV2"]


async def test_without_a_codec_all_that_a_program_writes_counts_as_moving(bench: Bench) -> None:
    await bench.open(codec=False, idle_ms=20)
    async with await Client.connect(bench) as client:
        assert await client.ask(b"A?\n") == b"A=ok\n"
        await bench.broker.stop_all({"p": b"ST\n"})
        client.write(b"B?\n")
        await until(lambda: bench.guests[0].waiting == 0 and bench.guests[0].exchanges == 2)
    assert b"B?" not in bench.line.lines


# --- those that go, stand still, or are too many


async def test_a_program_that_dies_in_mid_exchange_leaves_its_reply_to_nobody(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    await bench.open(lambda line: Answer(b"SLOW=ok\n", 0.15) if line == b"SLOW?" else echo(line))
    script = f"import os, signal; f = os.open({str(bench.link)!r}, os.O_RDWR | os.O_NOCTTY); "
    script += "os.write(f, b'SLOW?\\nNEVER?\\nHALF'); os.kill(os.getpid(), signal.SIGKILL)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == -signal.SIGKILL
    program = device()  # the next one may come at once
    program.write(b"A?\n")
    assert await program.read(5) == b"A=ok\n"
    assert await program.read(1, within_s=0.1) == b""
    assert bench.line.lines == [b"SLOW?", b"A?"]
    assert bench.broker.status()[0].late == 1
    assert "nobody gets its reply" in caplog.text
    assert "left half a command" in caplog.text


async def test_a_program_that_writes_and_leaves_at_once_has_done_so(bench: Bench, device: Callable[[], Device]) -> None:
    await bench.open()
    program = device()
    program.write(b"SET 1\nSET 2\n")
    program.close()
    await until(lambda: bench.line.lines == [b"SET 1", b"SET 2"])
    await until(lambda: bench.guests == ())


async def test_a_tcp_program_that_writes_no_more_still_gets_its_answers(bench: Bench) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        client.write(b"A?\nB?\n")
        client.writer.write_eof()
        assert [await client.line() for _ in range(3)] == [b"A=ok\n", b"B=ok\n", b""]


async def test_half_a_command_is_cut_off_by_the_limit_and_told_of(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    await bench.open(stall_s=0.1)
    program = device()
    program.write(b"MV1")
    async with await Client.connect(bench) as client:
        client.write(b"MV2")
        assert await client.line() == b""
    await until(lambda: bench.guests == ())
    with pytest.raises(OSError, match="Input/output error"):
        program.write(b"0\n")
    assert bench.line.lines == []
    assert caplog.text.count("half a command for 0.1 s") == 2


async def test_a_program_that_never_reads_is_cut_off_and_keeps_nobody_waiting(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    big = b"x" * 1000 + b"\n"
    await bench.open(lambda line: big if line == b"BIG?" else echo(line), stall_s=0.2)
    program = device()
    program.write(b"BIG?\n" * 200)
    await until(lambda: bool(bench.guests) and bench.guests[0].exchanges >= 20)
    assert await bench.broker.port("p").exchange(b"A?\n", holder="a", wait_s=0.5) == b"A=ok\n"
    await until(lambda: bench.guests == ())
    assert "has not read for 0.2 s" in caplog.text
    fresh = device()
    fresh.write(b"B?\n")
    assert await fresh.read(5) == b"B=ok\n"


async def test_a_second_program_on_the_pty_is_hung_up_on_and_the_first_goes_on(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    await bench.open()
    first = device()
    first.write(b"A?\n")
    assert await first.read(5) == b"A=ok\n"
    second = device()
    await until(lambda: "a second program opened" in caplog.text)
    with pytest.raises(OSError, match="Input/output error"):
        second.write(b"X\n")
    first.write(b"B?\n")
    assert await first.read(5) == b"B=ok\n"
    first.close()
    third = device()
    third.write(b"C?\n")
    assert await third.read(5) == b"C=ok\n"
    assert bench.line.lines == [b"A?", b"B?", b"C?"]


async def test_one_tcp_program_too_many_is_hung_up_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.open(clients=2)
    async with await Client.connect(bench) as a, await Client.connect(bench) as b, await Client.connect(bench) as c:
        assert await c.line() == b""
        assert [await one.ask(b"A?\n") for one in (a, b)] == [b"A=ok\n"] * 2
    assert "too many programs" in caplog.text


async def test_opening_and_closing_thirty_times_in_a_row_always_works(
    bench: Bench, device: Callable[[], Device]
) -> None:
    await bench.open()
    for i in range(30):
        program = device()
        program.write(b"%d?\n" % i)
        assert await program.read(len(b"%d=ok\n" % i)) == b"%d=ok\n" % i
        program.close()


async def test_the_next_program_may_come_before_the_end_of_the_last_is_known(
    bench: Bench, device: Callable[[], Device]
) -> None:
    await bench.open()
    first = device()
    await until(lambda: len(bench.guests) == 1)
    first.write(b"HALF")
    first.close()
    second = device()  # without a turn of the broker's loop between
    second.write(b"A?\n")
    assert await second.read(5) == b"A=ok\n"
    assert bench.line.lines == [b"A?"]


async def test_programs_are_told_apart_by_their_process(bench: Bench) -> None:
    await bench.open()
    script = f"import os; f = os.open({str(bench.link)!r}, os.O_RDWR | os.O_NOCTTY); input()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE)
    await until(lambda: any(f" {process.pid}/python" in guest.name for guest in bench.guests))
    process.kill()
    await process.wait()
    await until(lambda: bench.guests == ())


# --- the pty's settings


async def test_the_pty_is_raw_and_stays_so(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await bench.open()
    program = device()
    mode = termios.tcgetattr(program.fd)
    mode[0] |= termios.ICRNL
    mode[3] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(program.fd, termios.TCSANOW, mode)
    program.write(b"A?\n")
    assert await program.read(5) == b"A=ok\n"
    await clock.pause(0.05)
    assert bench.line.lines == [b"A?"], "an answer was echoed back as a command"
    assert "it is raw again" in caplog.text


async def test_another_speed_is_told_of_and_changes_nothing(
    bench: Bench, device: Callable[[], Device], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await bench.open(serial={"path": "/dev/ttyUSB0", "baud": 19200})
    program = device()
    assert termios.tcgetattr(program.fd)[4] == termios.B19200
    mode = termios.tcgetattr(program.fd)
    mode[4] = mode[5] = termios.B9600
    termios.tcsetattr(program.fd, termios.TCSANOW, mode)
    program.write(b"A?\n")
    assert await program.read(5) == b"A=ok\n"
    assert "keeps its 19200 baud" in caplog.text


# --- without a codec


async def test_without_a_codec_the_lease_ends_with_silence(bench: Bench) -> None:
    await bench.open(lambda line: Answer(line + b"=ok\n", 0.01), codec=False, idle_ms=50)
    async with await Client.connect(bench) as client:
        client.write(b"A?\n")
        await until(lambda: bench.broker.status()[0].holder is not None)
        begun_s = clock.monotonic_s()
        assert await client.line() == b"A?=ok\n"
        await until(lambda: bench.broker.status()[0].holder is None)
        assert clock.monotonic_s() - begun_s >= 0.05


async def test_without_a_codec_two_talkative_programs_take_turns_and_get_their_own(bench: Bench) -> None:
    await bench.open(lambda line: Answer(line + b"=ok\n", 0.002), codec=False, idle_ms=25, hold_max_s=0.02)

    async def talk(name: bytes) -> None:
        async with await Client.connect(bench) as client:
            for i in range(25):
                assert await client.ask(name + b"%d?\n" % i) == name + b"%d?=ok\n" % i

    async with asyncio.timeout(20):
        await asyncio.gather(talk(b"a"), talk(b"b"))
    turns = sum(a[:1] != b[:1] for a, b in zip(bench.line.lines, bench.line.lines[1:], strict=False))
    assert turns >= 4


async def test_without_a_codec_a_dead_program_leaves_its_reply_to_nobody(bench: Bench) -> None:
    await bench.open(lambda line: Answer(line + b"=ok\n", 0.04 if line == b"SLOW?" else 0.0), codec=False, idle_ms=80)
    async with await Client.connect(bench) as dying:
        dying.write(b"SLOW?\n")
        await until(lambda: b"SLOW?" in bench.line.lines)
        dying.writer.transport.abort()
        async with await Client.connect(bench) as client:
            assert await client.ask(b"A?\n") == b"A?=ok\n"


async def test_a_port_with_neither_codec_nor_idle_time_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"ports\.p\.virtual.*set idle_ms"):
        await bench.open(codec=False)


# --- opening and closing


async def test_what_stands_where_the_link_belongs_is_left_alone(bench: Bench) -> None:
    bench.link.parent.mkdir(parents=True)
    bench.link.write_text("precious")
    with pytest.raises(PortOpenError, match="there is a file of that name"):
        await bench.open()
    assert bench.link.read_text() == "precious"
    assert not bench.line.is_open


async def test_a_link_that_a_killed_lab_left_is_replaced(bench: Bench) -> None:
    bench.link.parent.mkdir(parents=True)
    bench.link.symlink_to("/dev/pts/9999")
    await bench.open()
    assert bench.link.exists()


async def test_a_tcp_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        broker = Broker()
        definition = PortDefinition("p", virtual=VirtualDefinition(str(tmp_path / "dev"), address))
        await broker.add(definition, ScriptedCodec(), ScriptedTransport(echo))
        with pytest.raises(PortBusyError, match=f"{address}: another program listens there"):
            await broker.open("p")
        assert not (tmp_path / "dev").is_symlink()
        await broker.aclose()


async def test_closing_hangs_up_on_everybody_and_lets_nobody_in(bench: Bench, device: Callable[[], Device]) -> None:
    await bench.open()
    program = device()
    async with await Client.connect(bench) as client:
        where = bench.tcp
        await bench.broker.close_virtual()
        assert await client.line() == b""
    with pytest.raises(OSError, match="Input/output error"):
        program.write(b"A?\n")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*where)
    assert await bench.broker.port("p").exchange(b"A?\n", holder="a") == b"A=ok\n"


async def test_a_lost_line_leaves_the_program_without_an_answer_until_it_is_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.open()
    async with await Client.connect(bench) as client:
        bench.line.unplug()
        client.write(b"A?\n")
        await until(lambda: "ended without an answer" in caplog.text)
        bench.line.replug()
        await until(lambda: bench.broker.status()[0].state == "open")
        assert await client.ask(b"B?\n") == b"B=ok\n"
