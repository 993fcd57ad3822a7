"""What `duodaq stop-all` says to programs: JSON, of a stop and of its reset."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from duodaq.app import Lab, LabHost
from duodaq.cli._stop_all import order_stop_all
from duodaq.testing import rail_lab


async def test_a_stop_and_its_reset_are_told_to_programs_as_json(tmp_path: Path) -> None:
    lab, told = Lab(rail_lab(tmp_path)), list[Any]()
    name = lab.definition.name

    async def serves() -> None:
        for reset in (False, True, True):
            said = io.StringIO()
            assert await asyncio.to_thread(order_stop_all, name, Console(file=said), reset=reset, as_json=True) == 0
            told.append(json.loads(said.getvalue()))
        host.ask_to_end()

    host = LabHost(lab)
    async with asyncio.timeout(60):
        await host.run(serves)
    stopped, lifted, again = told
    assert stopped["failures"] == {}
    assert lifted == {"lab": name, "was_latched": True, "latched": False}
    assert again == {"lab": name, "was_latched": False, "latched": False}
