"""A device that takes its time to say who it is, after its line was lost or a command was cut: no answer of it is taken
for another's. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from duodaq.clock import pause
from duodaq.errors import PortTimeoutError
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Port
from duodaq.testing import virtual_time
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport

LONGEST_S = 3.0
LATENCIES = [(0.01, 0.01), (0.049, 0.052), (0.06, 0.06), (0.06, 0.1), (0.1, 0.2), (0.4, 0.9), (0.9, 0.9)]


class Device:
    """Answers in turn, never a later question before an earlier one.

    `latencies`: how long each of the next answers to a question for its name takes; the last one goes on.
    """

    def __init__(self, latencies: tuple[float, ...]) -> None:
        self._latencies: Iterator[float] = iter(latencies)
        self._last, self._free_s = latencies[-1], 0.0
        self.slow = False

    def hears(self, line: bytes) -> Answer | None:
        if line not in (b"ID?", b"A?"):
            return None  # half a command, and another one behind it: that it does not understand
        if line == b"A?" or not self.slow:
            return self._says(b"A=1\n" if line == b"A?" else b"device 1\n", 0.001)
        return self._says(b"device 1\n", next(self._latencies, self._last))

    def _says(self, data: bytes, after_s: float) -> Answer:
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(self._free_s + 0.0001, now_s + after_s)
        return Answer(data, self._free_s - now_s)


async def port_of(device: Device) -> tuple[Broker, ScriptedTransport, Port]:
    broker, line = Broker(), ScriptedTransport(device.hears)
    definition = PortDefinition("p", timeout_s=0.2, options={"quiet_s": 0.05})
    port = await broker.add(definition, ScriptedCodec(LONGEST_S), line)
    await broker.open("p")
    assert await port.exchange(b"ID?\n", holder="a") == b"device 1\n"
    device.slow = True
    return broker, line, port


async def asks_rightly(port: Port, times: int = 5) -> None:
    for _ in range(times):
        assert await port.exchange(b"A?\n", holder="a") == b"A=1\n"
        await pause(0.05)


@pytest.mark.parametrize("half", [b"", b"VOL"], ids=["idle", "half a command"])
@pytest.mark.parametrize("latencies", LATENCIES)
@virtual_time
async def test_after_a_lost_line_every_answer_belongs_to_its_question(
    latencies: tuple[float, ...], half: bytes
) -> None:
    broker, line, port = await port_of(Device(latencies))
    line.unplug()
    line._partial += half
    line.replug()
    while not broker.status()[0].reconnects:
        await pause(0.01)
    await asks_rightly(port)
    await broker.aclose()


@pytest.mark.parametrize("latencies", LATENCIES)
@virtual_time
async def test_after_a_command_that_was_cut_every_answer_belongs_to_its_question(latencies: tuple[float, ...]) -> None:
    broker, line, port = await port_of(Device(latencies))
    line.capacity = 3
    with pytest.raises(PortTimeoutError, match="not all of the command"):
        await port.exchange(b"VOLTAGE 3\n", holder="a")
    line.unblock()
    await asks_rightly(port)
    assert broker.status()[0].resyncs == 1
    await broker.aclose()
