"""A driver call that waits for a port which somebody else keeps: it ends before its caller is told that it is over."""

from __future__ import annotations

from typing import Any

import pytest

from duodaq import sim
from duodaq.clock import pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import PortBusyError
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, PortDefinition, RuntimeDefinition


class Switch:
    """A driver that switches on and asks whether that is so."""

    def __init__(self, adapter: Any) -> None:
        self.line = adapter

    def on(self) -> bytes:
        self.line.write(b"OUTP ON;OUTP?\n")
        return bytes(self.line.read_until(b"\n"))


@pytest.mark.parametrize("mode", ["inline", "process"])
async def test_what_was_waited_for_in_vain_is_never_sent_and_the_error_names_the_holder(mode: Any) -> None:
    with sim.launch("scpi-psu", tcp=True) as supply:
        lab = LabDefinition(
            "busy",
            ports=(PortDefinition("psu", tcp=supply.address, codec="scpi"),),
            instruments=(InstrumentDefinition("psu", "v2", Switch, port="psu", deadline_s=1.0),),
            v2=RuntimeDefinition("v2", mode),
        )
        manager = DualRuntimeManager(lab)
        await manager.start()
        try:
            port = manager.broker.port("psu")
            async with port.lease("somebody else") as lease:
                with pytest.raises(PortBusyError, match="held by somebody else"):
                    await manager.command("psu", Execute("on"))
                await pause(0.3)
                assert await lease.exchange(b"OUTP?\n") == b"0\n"
            await pause(0.2)
            assert await port.exchange(b"OUTP?\n", holder="test") == b"0\n"
            assert b"1" in await manager.command("psu", Execute("on"))
        finally:
            await manager.shutdown(5)
