import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.clock import pause
from duodaq.drivers import codec
from duodaq.errors import ConfigError, LifecycleError, OutOfRangeError, PortLostError, RefusedError, ReplyTimeoutError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    Recover,
    RuntimeStatus,
    SetParameter,
    Shutdown,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import scalars_of, schema_name
from duodaq.testing.coexistence._bench import until
from duodaq.v4 import DataPublisher, V4Runtime

EXAMPLES = Path(__file__).parents[2] / "examples"
DMM = InstrumentDefinition(
    "dmm",
    "v4",
    "duodaq:ScpiActor",
    port="dmm",
    polls=(PollDefinition("voltage", 0.02, "V", read="READ?"),),
)


@pytest.fixture(scope="module")
def multimeter():
    with sim.launch("scpi-dmm", tcp=True) as process:
        yield process


@asynccontextmanager
async def lab(address: str, definition: InstrumentDefinition = DMM, timeout_s: float = 2.0, table=None):
    broker, publisher = Broker(), DataPublisher()
    await broker.add(PortDefinition("dmm", tcp=address, codec="scpi", timeout_s=timeout_s), codec("scpi"))
    await broker.open("dmm")
    runtime = V4Runtime(broker, table or ParameterTable(), publisher)
    await runtime.add(definition)
    try:
        await runtime.start(20)
        yield runtime, broker, publisher
    finally:
        await runtime.stop(5)
        await broker.aclose()


async def execute(runtime: V4Runtime, name: str, *args: object, deadline_s: float | None = None):
    return await runtime.command("dmm", Execute(name, args), deadline_s)


async def test_queries_and_writes_reach_the_instrument(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        assert (await execute(runtime, "identify")).count(",") == 3
        await execute(runtime, "write", "CONF:VOLT:DC 10")
        assert float(await execute(runtime, "query", "VOLT:RANG?")) == 10
        assert await execute(runtime, "read_error") == []


async def test_a_query_that_is_not_known_is_refused_with_the_instruments_words(multimeter) -> None:
    async with lab(multimeter.address, timeout_s=0.3) as (runtime, _, _):
        with pytest.raises(RefusedError, match="dmm") as caught:
            await execute(runtime, "query", "NO:SUCH:THING?")
        assert caught.value.code == -113
        assert await execute(runtime, "read_error") == []


async def test_reading_errors_empties_the_queue_and_clearing_does_too(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        await execute(runtime, "write", "NONSENSE")
        await execute(runtime, "write", "VOLT:RANG 1e9")
        assert [code for code, _ in await execute(runtime, "read_error")] == [-113, -222]
        await execute(runtime, "write", "NONSENSE")
        await execute(runtime, "clear_errors")
        assert await execute(runtime, "read_error") == []


async def test_a_transaction_waits_until_the_triggered_readings_are_there(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        for command in ("*RST", "CONF:VOLT:DC 10", "VOLT:NPLC 1", "SAMP:COUN 20", "TRIG:SOUR IMM"):
            await execute(runtime, "write", command)
        await execute(runtime, "write", "*ESE 3")
        await execute(runtime, "transact", "INIT")
        assert int(float(await execute(runtime, "query", "DATA:POIN?"))) == 20
        assert int(await execute(runtime, "query", "*ESE?")) == 3


async def test_a_refused_transaction_raises_and_restores_the_event_mask(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        await execute(runtime, "write", "*ESE 3")
        with pytest.raises(RefusedError) as caught:
            await execute(runtime, "transact", "VOLT:RANG 1e9")
        assert caught.value.code == -222
        assert int(await execute(runtime, "query", "*ESE?")) == 3


async def test_a_transaction_that_does_not_end_in_time_is_unknown(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        for command in ("*RST", "TRIG:SOUR BUS"):
            await execute(runtime, "write", command)
        with pytest.raises(ReplyTimeoutError) as caught:
            await execute(runtime, "transact", "INIT", 0.3)
        assert caught.value.fate == "unknown"
        await execute(runtime, "write", "*RST")
        await execute(runtime, "clear_errors")


async def test_every_command_becomes_an_event_row(multimeter) -> None:
    async with lab(multimeter.address, timeout_s=0.3) as (runtime, _, publisher):
        events = publisher.subscribe("test", streams=["dmm.events"])
        await execute(runtime, "query", "VOLT:NPLC?")
        with pytest.raises(RefusedError):
            await execute(runtime, "query", "WRONG?")
        rows = [events.get_nowait().to_pylist()[0] for _ in range(2)]
        events.close()
        assert [row["command"] for row in rows] == ["VOLT:NPLC?", "WRONG?"]
        assert [row["success"] for row in rows] == [True, False]
        assert "-113" in rows[1]["error"]
        assert rows[1]["sequence"] == rows[0]["sequence"] + 1


async def test_a_polled_channel_streams_scalars_and_can_be_read_at_once(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, publisher):
        await execute(runtime, "write", "*RST")
        await execute(runtime, "write", "VOLT:NPLC 0.02")
        rows = publisher.subscribe("test", streams=["dmm.voltage"])
        await runtime.command("dmm", StartAcquisition())
        assert runtime.instruments()[0].state is InstrumentState.ACQUIRING
        assert await until(lambda: rows.occupancy >= 4, 10.0)
        await runtime.command("dmm", StopAcquisition())
        before = rows.occupancy
        one = await runtime.command("dmm", ReadChannel("voltage"))
        assert await until(lambda: rows.occupancy > before, 5.0)
        batches = [rows.get_nowait() for _ in range(rows.occupancy)]
        rows.close()
        assert {schema_name(batch.schema) for batch in batches} == {"scalar/1"}
        scalars = [scalar for batch in batches for scalar in scalars_of(batch)]
        assert [scalar.sequence for scalar in scalars] == list(range(len(scalars)))
        assert (scalars[-1].value, scalars[-1].t_ns, scalars[-1].unit) == (one.value, one.t_ns, "V")
        with pytest.raises(OutOfRangeError, match="voltage"):
            await runtime.command("dmm", ReadChannel("current"))


async def test_a_lost_port_is_said_and_the_stream_goes_on_when_it_is_back(multimeter) -> None:
    with sim.launch("scpi-dmm", tcp=True) as own:
        async with lab(own.address) as (runtime, _, _):
            await runtime.command("dmm", StartAcquisition())
            own.unplug()
            for _ in range(100):
                await pause(0.05)
                if runtime.status is RuntimeStatus.DEGRADED:
                    break
            assert runtime.instruments()[0].state is InstrumentState.ERROR
            with pytest.raises((PortLostError, LifecycleError)):
                await runtime.command("dmm", ReadChannel("voltage"))
            own.replug()
            for _ in range(200):
                await pause(0.05)
                if runtime.status is RuntimeStatus.RUNNING:
                    break
            assert runtime.instruments()[0].state is InstrumentState.ACQUIRING


async def test_an_own_actor_with_three_settings_and_a_stream_takes_at_most_forty_lines(multimeter) -> None:
    assert len((EXAMPLES / "own_actor.py").read_text().splitlines()) <= 40
    own = InstrumentDefinition(
        "dmm", "v4", "./own_actor.py:Voltmeter", port="dmm", settings={"nplc": 0.2, "range": 10}, base_dir=EXAMPLES
    )
    try:
        async with lab(multimeter.address, own) as (runtime, _, publisher):
            assert await runtime.command("dmm", GetParameter("nplc")) == 0.2
            assert await runtime.command("dmm", SetParameter("samples", 3)) == 3
            assert await runtime.command("dmm", SetParameter("samples", 1)) == 1
            with pytest.raises(RefusedError):
                await runtime.command("dmm", SetParameter("range", 1e9))
            rows = publisher.subscribe("test", streams=["dmm.voltage"])
            await runtime.command("dmm", StartAcquisition())
            batch = await rows.get(timeout_s=5)
            rows.close()
            assert scalars_of(batch)[0].unit == "V"
    finally:
        for name in [name for name in sys.modules if name.startswith("duodaq_lab_")]:
            del sys.modules[name]


async def test_watched_parameters_are_in_the_table_from_the_start(multimeter) -> None:
    own = InstrumentDefinition(
        "dmm", "v4", f"{EXAMPLES / 'own_actor.py'}:Voltmeter", port="dmm", watched=("range", "samples")
    )
    table = ParameterTable()
    async with lab(multimeter.address, own, table=table):
        assert table.get("dmm", "samples").value == 1
        assert table.get("dmm", "range").unit == "V"
        assert table.get("dmm", "nplc") is None


async def test_settings_accepted_later_are_applied_again_after_a_restart(multimeter) -> None:
    own = InstrumentDefinition("dmm", "v4", "./own_actor.py:Voltmeter", port="dmm", base_dir=EXAMPLES)
    async with lab(multimeter.address, own) as (runtime, _, _):
        await runtime.command("dmm", SetParameter("nplc", 0.02))
        await runtime.restart("dmm")
        assert await runtime.command("dmm", GetParameter("nplc")) == 0.02


async def test_a_shut_down_instrument_refuses_commands_until_it_is_recovered(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        await runtime.command("dmm", Shutdown())
        assert runtime.instruments()[0].state is InstrumentState.DISCONNECTED
        with pytest.raises(LifecycleError, match="not running"):
            await execute(runtime, "identify")
        await runtime.command("dmm", Recover())
        assert await execute(runtime, "identify")


async def test_two_drivers_may_not_have_one_id_and_unknown_drivers_are_refused(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        for definition in (
            DMM,
            InstrumentDefinition("a", "v4", "duodaq:Nothing"),
            InstrumentDefinition("b", "v4", "no.such.module:Thing"),
            InstrumentDefinition("c", "v4", "./missing.py:Thing", base_dir=EXAMPLES),
            InstrumentDefinition("d", "v4", "json:JSONDecoder"),
        ):
            with pytest.raises(ConfigError, match="instruments"):
                await runtime.add(definition)
        assert len(runtime.instruments()) == 1


async def test_many_commands_at_once_each_get_their_own_answer(multimeter) -> None:
    async with lab(multimeter.address) as (runtime, _, _):
        wanted = [f"{1 + n}" for n in range(40)]
        await execute(runtime, "write", "*RST")
        replies = await asyncio.gather(*(execute(runtime, "query", f"*ESE {n};*ESE?") for n in wanted))
        assert replies == wanted
