"""The cable comes out, or the power goes, at every byte of an exchange, with every instrument.

Whoever made that exchange gets its whole reply or one typed error, soon; when the line is back the next exchange is
right at the first attempt; and of a command that was cut in two the device has done all or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq import clock, drivers
from duodaq.drivers.ell14 import EllCodec
from duodaq.errors import DeliveryError, DuodaqError, PortLostError, PortTimeoutError
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Port, PortState
from duodaq.sim import Faults, LocalTable, PtyEndpoint, SimServer, TcpEndpoint, make_simulator

pytestmark = pytest.mark.serial

BOOT_S = 0.1
TIMEOUT_S = 0.3
LONGEST_REPLY_S = 0.3
"""Of every device here: they answer at once, and so the test need not wait for what cannot come."""
HANGS_S = 20.0
AT_ONCE = 60
NO_FAULTS = Faults()


@dataclass(frozen=True)
class Exchange:
    """What is written, and what the reply looks like as a whole (a pattern; empty: there is none).

    `asked` is asked afterwards, and answered by one of `allowed`: as it was before, or as it was told.
    """

    request: bytes
    reply: bytes = b""
    asked: bytes = b""
    allowed: tuple[bytes, ...] = ()
    stop_after_s: float | None = None


@dataclass(frozen=True)
class Instrument:
    """One simulated instrument with its codec: what is said to it first, who it says it is, and what is tried on it."""

    name: str
    codec: str | None
    exchanges: tuple[Exchange, ...]
    line: str = "pty"
    model: str | None = None
    first: tuple[bytes, ...] = ()
    who: tuple[bytes, bytes] = (b"*IDN?\n", rb"[^\n]*,[^\n]*\n")
    idle_ms: float | None = None


NUMBER = rb"[+-]?[\d.]+(E[+-]?\d+)?"
ESP300 = Instrument(
    "esp300",
    "esp300",
    (
        Exchange(b"1TP\r", NUMBER + rb"\r\n"),
        Exchange(b"1VA?;VE?;2VA?\r", NUMBER + rb"\r\nESP300[^\r]*\r\n" + NUMBER + rb"\r\n"),
        Exchange(b"1VA2.25\r", b"", b"1VA?\r", (b"2.25\r\n",)),
        Exchange(b"1PA12.5\r", b"", b"1PA?\r", (b"12.5\r\n",)),
        Exchange(b"1PA5;1WS;1TP\r", NUMBER + rb"\r\n", stop_after_s=0.01),
    ),
    first=(b"1MO\r",),
    who=(b"VE?\r", rb"ESP300 Version [^\r]*\r\n"),
)
NEWPORT1830C = Instrument(
    "newport1830c",
    "newport1830c",
    (
        Exchange(b"D?\n", NUMBER + rb"\n"),
        Exchange(b"W?\nU?\n", rb"\d{4}\n\d\n"),
        Exchange(b"W0532\n", b"", b"W?\n", (b"0532\n",)),
    ),
    who=(b"Z?\n", rb"[01]\n"),
)
MAITAI = Instrument(
    "maitai",
    "maitai",
    (
        Exchange(b"READ:WAV?\n", rb"\d+(\.\d+)?nm\n"),
        Exchange(b"WAV 812\n", b"", b"WAV?\n", (b"812nm\n",)),
        Exchange(b"SHUT 1\n", b"", b"SHUT?\n", (b"1\n",)),
    ),
    model="MaiTai/warm",
)
ELL14 = Instrument(
    "ell14",
    "ell14",
    (
        Exchange(b"0gp", rb"0PO[0-9A-F]{8}\r\n"),
        Exchange(b"0sv50", rb"0GS00\r\n", b"0gv", (b"0GV50\r\n",)),
        Exchange(b"0ma00000400", rb"0PO[0-9A-F]{8}\r\n"),
    ),
    who=(b"0in", rb"0IN[0-9A-F]{30}\r\n"),
)
DMM = Instrument(
    "scpi-dmm",
    "scpi",
    (
        Exchange(b"READ?\n", NUMBER + rb"\n"),
        Exchange(b"SAMP:COUN 3;:READ?\n", NUMBER + b"," + NUMBER + b"," + NUMBER + rb"\n"),
        Exchange(b"VOLT:NPLC 0.2\n", b"", b"VOLT:NPLC?\n", (b"+2.00000000E-01\n",)),
    ),
)
SUPPLY = Instrument(
    "scpi-psu",
    "scpi",
    (
        Exchange(b"MEAS:VOLT?\n", NUMBER + rb"\n"),
        Exchange(b"VOLT 2.5\n", b"", b"VOLT?\n", (b"+2.50000000E+00\n",)),
        Exchange(b"OUTP ON\n", b"", b"OUTP?\n", (b"1\n",)),
    ),
    line="tcp",
)
SCOPE = Instrument(
    "scpi-scope",
    "scpi",
    (
        Exchange(b":WAV:DATA?\n", rb"(?s)#\d.{100,}\n"),
        Exchange(b":TIM:SCAL?\n", NUMBER + rb"\n"),
        Exchange(b":CHAN1:SCAL 0.25\n", b"", b":CHAN1:SCAL?\n", (b"+2.500000E-01\n",)),
    ),
    line="tcp",
    first=(b":WAV:POIN 100\n", b":DIG CHAN1\n"),
)
SHUTTER = Instrument(
    "shutter",
    "scpi",
    (Exchange(b"SHUT?\n", rb"[01]\n"), Exchange(b"SHUT 1\n", b"", b"SHUT?\n", (b"1\n",))),
)
INSTRUMENTS = [
    ESP300,
    NEWPORT1830C,
    MAITAI,
    ELL14,
    DMM,
    replace(DMM, line="tcp"),
    SUPPLY,
    SCOPE,
    SHUTTER,
]


@dataclass(frozen=True)
class Blow:
    """What happens, and after how many bytes which way."""

    fault: str
    after: int

    @property
    def is_cut(self) -> bool:
        return self.fault.startswith("cut")


@dataclass
class Bench:
    """A simulator, a broker and a port between them, all on this loop."""

    server: SimServer
    broker: Broker
    port: Port

    @property
    def state(self) -> PortState:
        return self.broker.status()[0].state

    async def until(self, *states: PortState, reconnects: int = 0) -> None:
        async with asyncio.timeout(HANGS_S):
            while self.state not in states or self.broker.status()[0].reconnects < reconnects:
                await clock.pause(0.002)

    async def ask(self, request: bytes) -> bytes:
        return await self.port.exchange(request, holder="test", timeout_s=HANGS_S)


@asynccontextmanager
async def bench(
    instrument: Instrument, folder: Path, faults: Faults = NO_FAULTS, seed: int = 1
) -> AsyncIterator[Bench]:
    table = LocalTable(1, shutter_open=False)
    simulator = make_simulator(instrument.name, model=instrument.model, table=table, seed=1)
    pty = instrument.line == "pty"
    endpoint = PtyEndpoint(str(folder / f"line{next(SERIAL)}")) if pty else TcpEndpoint()
    server = SimServer(simulator, endpoint, table=table, paced=False, faults=faults, seed=seed)
    server.start()
    codec = drivers.codec(instrument.codec) if instrument.codec else None
    if isinstance(codec, EllCodec):
        codec.latest_reply_s = 3.0  # of such short ways
    elif codec is not None:
        codec.longest_reply_s = LONGEST_REPLY_S
    broker = Broker(wire_log_size=64)
    where: dict[str, Any] = {"serial": {"path": server.address}} if pty else {"tcp": server.address}
    options = {"reconnect_first_s": 0.004, "quiet_s": 0.03}
    definition = PortDefinition("p", codec=instrument.codec, idle_ms=instrument.idle_ms, options=options, **where)
    port = await broker.add(definition, codec)
    try:
        await broker.open("p")
        made = Bench(server, broker, port)
        for command in instrument.first:
            await made.ask(command)
        yield made
    finally:
        await broker.aclose()
        server.close()


SERIAL = itertools.count()


async def made_whole(made: Bench, exchange: Exchange, timeout_s: float) -> bytes | BaseException:
    """The exchange, with its break-in if it has one, and what became of it."""

    async def stop() -> None:
        await clock.pause(exchange.stop_after_s or 0.0)
        with contextlib.suppress(PortLostError, PortTimeoutError):
            await made.broker.stop("p")

    stopping = asyncio.ensure_future(stop()) if exchange.stop_after_s is not None else None
    try:
        return await made.port.exchange(exchange.request, holder="test", timeout_s=timeout_s)
    except DuodaqError as error:
        return error
    finally:
        if stopping is not None:
            await stopping


async def lengths(instrument: Instrument, exchange: Exchange, folder: Path) -> tuple[int, int]:
    """How many bytes the exchange has, each way; it is whole on a line on which nothing happens."""
    async with bench(instrument, folder) as made:
        before = len(made.broker.log("p"))
        result = await made_whole(made, exchange, HANGS_S)
        if exchange.stop_after_s is None:
            assert isinstance(result, bytes), result
            assert re.fullmatch(exchange.reply, result), (exchange, result)
        records = made.broker.log("p")[before:]
        written = sum(len(record.data) for record in records if record.direction == ">" and record.exchange)
        heard = sum(len(record.data) for record in records if record.direction == "<")
    return written, heard


async def suffer(
    instrument: Instrument,
    exchange: Exchange,
    blow: Blow,
    folder: Path,
    faults: Faults = NO_FAULTS,
    *,
    known: bool,
    seed: int = 1,
) -> None:
    """One exchange with one blow; `known`: the broker has heard before who is there."""
    async with bench(instrument, folder, faults, seed) as made:
        default = await made.ask(exchange.asked) if exchange.asked else b""
        if known:
            assert re.fullmatch(instrument.who[1], await made.ask(instrument.who[0]))
        made.server.set_faults(replace(faults, boot_s=BOOT_S, **{blow.fault: blow.after}))
        async with asyncio.timeout(HANGS_S):
            result = await made_whole(made, exchange, TIMEOUT_S)
        if isinstance(result, bytes):
            assert re.fullmatch(exchange.reply, result), result
        elif isinstance(result, DeliveryError):
            assert exchange.stop_after_s is not None
            assert result.fate == "unknown"
        else:
            assert isinstance(result, PortLostError | PortTimeoutError), result
        await back(made, blow)
        assert re.fullmatch(instrument.who[1], await made.ask(instrument.who[0]))
        if exchange.asked:
            assert await made.ask(exchange.asked) in (default, *exchange.allowed), blow


async def back(made: Bench, blow: Blow) -> None:
    """Wait until what was lost is back, or until nothing has happened: the exchange may have fewer bytes."""
    await clock.pause(0.01)
    struck = made.server.report()["faults_done"]
    made.server.set_faults(Faults())
    if blow.is_cut and struck.get("cut"):
        await made.until(PortState.LOST)
        made.server.replug()
        await made.until(PortState.OPEN, reconnects=1)
    elif struck.get("cycle"):
        await clock.pause(BOOT_S * 1.5)
        await made.until(PortState.OPEN, PortState.RESYNC, reconnects=isinstance(made.server.endpoint, TcpEndpoint))


def blows(written: int, heard: int) -> Iterator[Blow]:
    for way, count in (("in", written), ("out", heard)):
        for after in range(count + 1):
            yield Blow(f"cut_{way}", after)
            yield Blow(f"cycle_{way}", after)


async def suffer_all(instrument: Instrument, folder: Path, every: int) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(exchange: Exchange, blow: Blow, known: bool) -> None:
        async with places:
            try:
                await suffer(instrument, exchange, blow, folder, known=known)
            except (AssertionError, DuodaqError, TimeoutError) as error:
                raise AssertionError(f"{instrument.name} {exchange.request!r} {blow}: {error!r}") from error

    cases = [
        (exchange, blow)
        for exchange in instrument.exchanges
        for blow in blows(*await lengths(instrument, exchange, folder))
    ]
    async with asyncio.TaskGroup() as group:
        for number, (exchange, blow) in enumerate(cases[::every]):
            group.create_task(one(exchange, blow, known=bool(number % 3)))


def named(instrument: Instrument) -> str:
    return f"{instrument.name}-{instrument.line}"


@pytest.mark.parametrize("every", [None, pytest.param(1, marks=pytest.mark.soak)], ids=["", "every byte"])
@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=named)
async def test_a_line_that_is_lost_at_any_byte_comes_back_right(
    instrument: Instrument, every: int | None, tmp_path: Path
) -> None:
    """Of those with a socket, whose replies are long, each third byte is enough every day."""
    await suffer_all(instrument, tmp_path, every or (3 if instrument.line == "tcp" else 1))


@pytest.mark.parametrize("examples", [25, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_it_does_so_in_whatever_pieces_a_slow_line_brings_the_bytes(examples: int, tmp_path: Path) -> None:
    @settings(max_examples=examples)
    @given(
        st.sampled_from(INSTRUMENTS).flatmap(lambda one: st.tuples(st.just(one), st.sampled_from(one.exchanges))),
        st.sampled_from(["cut_in", "cut_out", "cycle_in", "cycle_out"]),
        st.integers(0, 60),
        st.floats(0.5, 8),
        st.booleans(),
        st.integers(0, 99),
    )
    def check(
        tried: tuple[Instrument, Exchange], fault: str, after: int, slow_ms: float, known: bool, seed: int
    ) -> None:
        slow = Faults(jitter_ms=(0.0, slow_ms))
        asyncio.run(suffer(*tried, Blow(fault, after), tmp_path, slow, known=known, seed=seed))

    check()
