"""The power supply and the oscilloscope by ScpiActor, over TCP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import numpy as np
import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.drivers import codec
from duodaq.errors import PortLostError, RefusedError, UnsafeStateError
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    SafeAction,
    SetParameter,
)
from duodaq.ports import Broker
from duodaq.testing.coexistence import Bench, Mode, until
from duodaq.v4 import DataPublisher, V4Runtime
from duodaq.v4.instruments import ScpiActor, scpi_setting


class Supply(ScpiActor):
    """A lab's own: two settings of the first output."""

    parameters: ClassVar = {
        "volts": scpi_setting("INST:NSEL 1;:VOLT", "V", emits=True),
        "amperes": scpi_setting("INST:NSEL 1;:CURR", "A", emits=True),
    }


SUPPLY = InstrumentDefinition(
    "supply",
    "v4",
    Supply,
    port="supply",
    polls=(PollDefinition("voltage", 0.1, "V", read="MEAS:VOLT? (@1)"),),
    stop=b"OUTP OFF,(@1:3)\n",
    safe={cause: SafeAction("stop") for cause in Cause},
)
SCOPE = InstrumentDefinition("scope", "v4", "duodaq:ScpiActor", port="scope")


@pytest.fixture(scope="module")
def devices():
    with (
        sim.launch_table(3, shutter_open=True) as table,
        sim.launch("scpi-psu", tcp=True, table=table) as supply,
        sim.launch("scpi-scope", tcp=True, table=table) as scope,
    ):
        yield supply, scope


@asynccontextmanager
async def lab_at(device: sim.SimProcess, definition: InstrumentDefinition) -> AsyncIterator[tuple[V4Runtime, Broker]]:
    device.fault()
    device.power_cycle()
    broker = Broker()
    await broker.add(PortDefinition(definition.id, tcp=device.address, codec="scpi", timeout_s=1.0), codec("scpi"))
    await broker.open(definition.id)
    runtime = V4Runtime(broker, ParameterTable(), DataPublisher())
    try:
        await runtime.add(definition)
        await runtime.start(20)
        yield runtime, broker
    finally:
        await runtime.stop(5)
        broker.reset_latch("test")
        await broker.aclose()


async def do(runtime: V4Runtime, name: str, *args: Any) -> Any:
    (status,) = runtime.instruments()
    return await runtime.command(status.id, Execute(name, args))


async def test_volts_are_set_and_measured(devices) -> None:
    async with lab_at(devices[0], SUPPLY) as (runtime, _):
        assert await runtime.command("supply", SetParameter("volts", 3.3)) == pytest.approx(3.3)
        await do(runtime, "write", "OUTP ON,(@1)")
        assert (await runtime.command("supply", ReadChannel("voltage"))).value == pytest.approx(3.3, abs=0.01)
        with pytest.raises(RefusedError) as caught:
            await runtime.command("supply", SetParameter("volts", 7.0))
        assert caught.value.code == -222
        assert await runtime.command("supply", GetParameter("volts")) == pytest.approx(3.3)


async def test_a_trip_is_a_typed_error_and_the_output_stays_off(devices) -> None:
    async with lab_at(devices[0], SUPPLY) as (runtime, _):
        for command in ("VOLT:PROT 2,(@1)", "VOLT 3,(@1)", "OUTP ON,(@1)"):
            await do(runtime, "write", command)
        assert await do(runtime, "query", "VOLT:PROT:TRIP? (@1)") == "1"
        with pytest.raises(RefusedError) as caught:
            await do(runtime, "transact", "OUTP ON,(@1)")
        assert caught.value.code == -221
        assert devices[0].report()["outputs"]["CH1"]["tripped"] == "OVP"


async def test_a_stop_all_switches_off_and_latches(devices) -> None:
    async with lab_at(devices[0], SUPPLY) as (runtime, broker):
        for command in ("VOLT 3,(@1)", "OUTP ON,(@1)"):
            await do(runtime, "write", command)
        assert devices[0].report()["outputs"]["CH1"]["on"]
        await broker.stop_all({"supply": SUPPLY.stop})
        assert await until(lambda: not devices[0].report()["outputs"]["CH1"]["on"], 1)
        with pytest.raises(UnsafeStateError):
            await do(runtime, "write", "OUTP ON,(@1)")


async def test_an_orderly_end_leaves_the_outputs_off() -> None:
    async with Bench(Mode("inline", "inline", "inline")) as bench:
        device = await bench.simulator("scpi-psu", tcp=True)
        manager = bench.manager([SUPPLY], [PortDefinition("supply", tcp=device.address, codec="scpi")])
        await manager.start()
        for command in ("VOLT 3,(@1:2)", "OUTP ON,(@1:2)"):
            await manager.command("supply", Execute("write", (command,)))
        assert await until(lambda: device.report()["outputs"]["CH2"]["on"], 1)
        await manager.shutdown(5.0)
        assert not any(output["on"] for output in device.report()["outputs"].values())


async def waveform(runtime: V4Runtime, form: str, dtype: str) -> np.ndarray:
    await do(runtime, "write", f":WAV:FORM {form}")
    fields = [float(field) for field in (await do(runtime, "query", ":WAV:PRE?")).split(",")]
    data = await do(runtime, "query_block", ":WAV:DATA?", 5.0)
    return (np.frombuffer(data, dtype).astype(float) - fields[9]) * fields[7] + fields[8]


async def test_a_waveform_comes_as_a_block_exact_to_the_byte(devices) -> None:
    async with lab_at(devices[1], SCOPE) as (runtime, broker):
        devices[1].fault("jitter=1-8")
        await do(runtime, "transact", ":CHAN1:SCAL 0.13;:WAV:POIN 50000;:DIG CHAN1")
        data = await do(runtime, "query_block", ":WAV:DATA?", 5.0)
        assert len(data) == 50_000
        assert b"\n" in data
        assert b"#" in data
        assert await do(runtime, "query_block", ":WAV:DATA?", 5.0) == data
        coarse, fine = await waveform(runtime, "BYTE", "u1"), await waveform(runtime, "WORD", ">u2")
        assert coarse == pytest.approx(fine, abs=0.13 * 8 / 256)
        assert broker.status()[0].resyncs == 0


async def test_text_comes_as_a_block_too(devices) -> None:
    async with lab_at(devices[1], SCOPE) as (runtime, _):
        await do(runtime, "transact", ":CHAN1:SCAL 0.2;:DIG CHAN1")
        await do(runtime, "write", ":WAV:FORM ASC")
        values = [float(value) for value in (await do(runtime, "query_block", ":WAV:DATA?")).split(b",")]
        assert len(values) == 1000
        assert max(values) == pytest.approx(0.5, abs=0.03)


async def test_two_who_ask_at_once_get_each_their_own_block(devices) -> None:
    async with lab_at(devices[1], SCOPE) as (runtime, broker):
        devices[1].fault("jitter=1-5")
        await do(runtime, "transact", ":CHAN1:SCAL 0.13;:WAV:POIN 5000;:DIG CHAN1")
        port = broker.port("scope")

        async def identity() -> bytes:
            return await port.exchange(b"*IDN?\n", holder="onlooker")

        asked = [do(runtime, "query_block", ":WAV:DATA?") if n % 2 else identity() for n in range(20)]
        answers = await asyncio.gather(*asked)
        assert all(answer.startswith(b"KEYSIGHT") for answer in answers[::2])
        assert len(set(answers[1::2])) == 1
        assert len(answers[1]) == 5000
        assert devices[1].report()["interleavings"] == 0


async def test_a_block_cut_by_an_unplugged_cable_is_one_error_and_the_next_is_whole(devices) -> None:
    async with lab_at(devices[1], SCOPE) as (runtime, broker):
        await do(runtime, "transact", ":WAV:POIN 50000;:DIG CHAN1")
        devices[1].fault(jitter_ms=(20.0, 60.0))
        asking = asyncio.ensure_future(do(runtime, "query_block", ":WAV:DATA?", 5.0))
        assert await until(lambda: any(record.data == b":WAV:DATA?\n" for record in broker.log("scope")), 2)
        devices[1].unplug()
        with pytest.raises(PortLostError):
            await asking
        devices[1].fault()
        devices[1].replug()
        assert await until(lambda: broker.status()[0].state == "open", 5)
        assert len(await do(runtime, "query_block", ":WAV:DATA?", 5.0)) == 50_000
