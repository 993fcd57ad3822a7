"""A device that is not there when its runtime starts, and comes later."""

from __future__ import annotations

from duodaq.bridge import ParameterTable
from duodaq.model import InstrumentDefinition, PollDefinition
from duodaq.ports import Broker
from duodaq.v2 import DataDistributor, V2Runtime


class LateRiser:
    """A device that is not there at the first attempt."""

    attempts = 0

    def __init__(self) -> None:
        type(self).attempts += 1
        if type(self).attempts == 1:
            raise ConnectionRefusedError("not yet")

    def get_rate(self) -> float:
        return 12.5


async def test_a_device_that_comes_after_the_start_is_polled_too_and_was_not_restarted() -> None:
    LateRiser.attempts = 0
    hub = DataDistributor()
    readings = hub.subscribe("test")
    polls = (PollDefinition("rate", 0.02, "Hz", call="get_rate"),)
    runtime = V2Runtime(Broker(), ParameterTable(), hub)
    await runtime.add(InstrumentDefinition("late", "v2", LateRiser, polls=polls))
    await runtime.start(1.0)
    try:
        assert (await readings.get(3.0)).value == 12.5
        assert runtime.instruments()[0].restarts == 0
    finally:
        await runtime.stop(1.0)
