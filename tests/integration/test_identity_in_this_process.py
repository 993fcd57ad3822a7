"""Also where a runtime lives in the manager's own process it is known who was at a port before its line was lost."""

from __future__ import annotations

from typing import Literal

import pytest

from duodaq import sim
from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.model import InstrumentDefinition, LabDefinition, PortDefinition, RuntimeDefinition


class Silent:
    """A driver that asks nothing by itself."""

    def __init__(self, adapter: object) -> None:
        self.adapter = adapter


@pytest.mark.parametrize("mode", ["inline", "thread"])
@pytest.mark.parametrize("later", [False, True], ids=["from the start", "added later"])
async def test_it_is_asked_who_is_there(mode: Literal["inline", "thread"], later: bool) -> None:
    with sim.launch("scpi-dmm", tcp=True, model="34465A") as meter:
        silent = InstrumentDefinition("silent", "v2", Silent, port="dmm")
        lab = LabDefinition(
            "identity",
            ports=(PortDefinition("dmm", tcp=meter.address, codec="scpi"),),
            instruments=() if later else (silent,),
            v2=RuntimeDefinition("v2", mode),
        )
        manager = DualRuntimeManager(lab)
        await manager.start()
        try:
            if later:
                await manager.add(silent)
            owner, limit = manager.broker.owner("dmm"), Deadline(5)
            while owner.identity_reply is None and not limit.passed:
                await pause(0.01)
            assert owner.identity_reply is not None
            assert b"34465A" in owner.identity_reply
        finally:
            assert (await manager.shutdown(5)).clean
