"""What a notebook shows at the end of a cell: escaped, small, and without asking any instrument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import duodaq
from duodaq import markup
from duodaq.app import Lab, LabClient
from duodaq.app._channel import LocalChannel
from duodaq.app._pages import axis_page, instrument_page, lab_page
from duodaq.app._scan_facts import ScanStatus
from duodaq.app._scans_handle import ScanHandle
from duodaq.errors import DeliveryError
from duodaq.model import AlarmDefinition
from duodaq.testing import RailActor, rail_lab

# What bluesky imports warns when it is loaded.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
TAGS = {"div", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
LOOKS = {"status", "channels", "parameters", "alarms", "scans", "scan_status", "presets", "describe", "preset_diff"}


class Reader(HTMLParser):
    """Which tags there are, with which attributes, whether each is closed, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= {"style"}, attrs
        assert "color" not in str(attrs), "its colours are the notebook's"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


class Listening(LocalChannel):
    """A lab of this program that knows what was asked of it."""

    asked: list[str]

    async def _ask(self, op: str, params: dict[str, Any]) -> Any:
        vars(self).setdefault("asked", []).append(op)
        return await super()._ask(op, params)


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Listening]:
    alarm = AlarmDefinition("hot", "rail", "x.position", high=1.0, note=EVIL, webhook="https://example.org/SECRET")
    one = Listening(Lab(replace(rail_lab(tmp_path), alarms=(alarm,))))
    yield one
    one.close()


def shown(value: Any) -> Reader:
    return Reader(value._repr_html_())


def test_everything_in_a_lab_is_shown_and_no_instrument_is_asked(channel: Listening) -> None:
    lab = LabClient(channel)
    lab.presets.save("alignment", note=EVIL)
    lab.rail.control(EVIL)
    run = lab.scan(lab.rail.x, np.linspace(0, 3, 31), lab.other, progress=False, sample=EVIL)
    diff = lab.presets.diff("alignment")
    channel.asked.clear()
    pages = [shown(one) for one in (lab, lab.rail, lab.rail.x, lab.alarms, lab.scans, lab.scans[1], lab.presets, diff)]
    assert set(channel.asked) <= LOOKS
    assert not any("SECRET" in page.text for page in pages)
    of_lab, of_rail, of_axis, of_alarms, of_scans, of_scan, of_presets, of_diff = pages
    assert of_lab.rows[1][:4] == ["rail", "v4", "ready", EVIL]
    assert ["x", "mm", "0 … 25"] in of_rail.rows
    assert next(row for row in of_rail.rows if row[0] == "x.position")[1] == "mm"
    assert "limits: 0 … 25 mm" in of_axis.text
    assert of_alarms.rows[1][0] == "hot"
    assert of_alarms.rows[1][-1] == EVIL
    assert of_scans.rows[1][:4] == of_scan.rows[1][:4] == ["1", "rail.x", "31 of 31", "complete"]
    assert of_presets.rows[1][0] == "alignment"
    assert of_presets.rows[1][3] == EVIL
    assert "no differences" in of_diff.text

    recorded = duodaq.open_run(run.directory).scans[0]
    for page in (shown(run), shown(recorded)):
        assert len(page.rows) == 12, "ten points, their names, and that there are more"
        assert [page.rows[n][0] for n in (1, 5, 6, 7, 11)] == ["1", "5", "⋮", "27", "31"]
        assert "rail_x [mm]" in page.rows[0]
        assert f"sample: {EVIL}" in page.text
        assert "31 of 31 points, complete" in page.text
    listed = shown(duodaq.runs(run.directory.parent))
    assert listed.rows[1][2:4] == ["finished", EVIL]


def test_what_a_preset_would_change_is_a_table(channel: Listening) -> None:
    lab = LabClient(channel)
    lab.presets.save("one")
    RailActor.all["rail"].has["gain"] = 7.0
    page = shown(lab.presets.diff("one"))
    assert page.rows[1][:3] == ["rail.gain", "7", "1"]
    assert "1 of" in page.text


def test_a_latched_stop_and_what_is_wrong_are_said_first(channel: Listening) -> None:
    lab = LabClient(channel)
    lab.stop_all()
    status = lab.status()
    first, *others = status["instruments"]
    ill = {**first, "state": "error", "message": EVIL}
    page = Reader(lab_page({**status, "instruments": [ill, *others]}))
    assert page.text.splitlines()[1].startswith("a stop is latched")
    assert page.rows[1][-1] == EVIL


def test_a_lab_that_is_gone_is_said_and_nothing_raised(channel: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = LabClient(channel)
    scans, axis = lab.scans, lab.rail.x

    async def gone(op: str, params: dict[str, Any]) -> Any:
        raise DeliveryError("lab rails is gone: its program has ended or was killed")

    monkeypatch.setattr(channel, "_ask", gone)
    for one in (lab, lab.rail, axis, lab.alarms, scans, lab.presets):
        assert "its program has ended or was killed" in shown(one).text
    scan = ScanHandle(channel, ScanStatus(1, ["x"], [], 1, "me", detached=False, since_ns=0))
    for one in (lab, lab.rail, lab.alarms, scans, lab.presets, scan):
        assert "is gone" in repr(one)


def test_a_lab_that_is_closed_is_said_and_nothing_raised(channel: Listening) -> None:
    lab = LabClient(channel)
    handles = (lab, lab.rail, lab.alarms, lab.scans, lab.presets)
    axis = lab.rail.x
    lab.close()
    for one in (*handles, axis):
        assert "this lab is closed" in shown(one).text
    for one in handles:
        assert "this lab is closed" in repr(one)


def test_no_secret_and_no_tag_comes_out_of_an_instrument() -> None:
    facts = {"id": EVIL, "driver": EVIL, "axes": [{"name": EVIL, "unit": EVIL, "limits": None}]}
    status = {"runtime": "v2", "mode": "inline", "state": "error", "message": EVIL}
    entry = {"name": EVIL, "value": EVIL * 100, "unit": EVIL, "t_ns": 0, "stale": True}
    secret = {**entry, "name": "wifi.password", "value": "SECRET"}
    channel = {"channel": EVIL, "unit": EVIL, "kind": EVIL}
    page = Reader(instrument_page(facts, status, [channel], [entry, secret]))
    assert "SECRET" not in page.text
    assert "(left out)" in page.text
    assert len(page.text) < 5000
    Reader(axis_page(EVIL, EVIL, (0.0, 1.0), entry))


def test_a_long_table_has_a_gap_in_its_middle() -> None:
    page = Reader(markup.table(("n",), [(n,) for n in range(1000)]))
    assert len(page.rows) == markup.MOST_ROWS + 2
    assert page.rows[-1] == ["999"]
    assert markup.table(("n",), []) == ""


def test_a_name_that_no_page_can_hold_is_shown_all_the_same() -> None:
    assert "runs/?" in markup.page("x", ["runs/\udcb5"]).encode().decode()
