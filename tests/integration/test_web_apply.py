"""A page that is open while a lab file is applied: it shows what the lab is now, and not what it was when it came."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.served_lamp import heard

from duodaq.app import Lab

PageServer: Any = pytest.importorskip("duodaq.web").PageServer
websockets = pytest.importorskip("websockets.asyncio.client")

LAB = """\
[runtimes.v2]
worker = "inline"

[web]
port = 0

[instruments.rail]
runtime = "v2"
driver = "./rail.py:Rail"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
poll."x.position" = { call = "place", unit = "mm" }

[alarms.far]
channel = "rail.x.position"
high = 10

[flight_recorder]
keep = 0
"""

RAIL = """\
class Rail:
    def place(self):
        return 0.0

    def move(self, axis, position):
        return position
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [('unit = "mm", limits = [0, 25]', 'unit = "mm", limits = [0, 7]'), ("high = 10", "high = 3")],
    ids=["an axis's limits", "an alarm's limit"],
)
async def test_an_open_page_is_told_what_an_apply_changed_within_its_stanza(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "rail.py").write_text(RAIL)
    file = tmp_path / "lab.toml"
    file.write_text(LAB)
    async with Lab.from_file(file) as lab, PageServer(lab) as page:
        place = page.address.replace("http", "ws") + "api/live"
        async with websockets.connect(place, proxy=None) as live:
            before = await heard(live, "hello")
            await heard(live, "lab")
            file.write_text(LAB.replace(old, new))
            assert not (await lab.changes.apply(file)).to_dict()["left"]
            after = await heard(live, "hello")
            told = [
                (one["instruments"][0]["panel"]["axes"][0]["limits"], one["alarms"][0]["high"])
                for one in (before, after)
            ]
            assert told[0] == ([0, 25], 10)
            assert told[1] == (([0, 7], 10) if "limits" in old else ([0, 25], 3))
            with pytest.raises(TimeoutError):  # once is enough
                async with asyncio.timeout(1.5):
                    await heard(live, "hello")
