"""The last bytes before a port is closed arrive, also where the other side is slow to read."""

from __future__ import annotations

import os
import select
import tty

import pytest

from duodaq import clock
from duodaq.model import PortDefinition
from duodaq.ports import Broker

pytest.importorskip("serial")
pytestmark = pytest.mark.serial


async def test_stop_bytes_written_just_before_the_close_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's flush of a pty takes back what its other side has not been given yet: rarely, on a busy machine."""
    flushed: list[object] = []
    monkeypatch.setattr("duodaq.ports._serial._discard_output", flushed.append)
    master, slave = os.openpty()
    tty.setraw(slave)
    broker = Broker()
    try:
        await broker.add(PortDefinition("shutter", serial={"path": os.ttyname(slave), "baud": 9600}, idle_ms=20.0))
        await broker.open("shutter")
        await broker.stop("shutter", b"SHUT 0\n")
        await broker.aclose()
        assert flushed == []
        await clock.pause(0.05)
        ready, _, _ = select.select([master], [], [], 1.0)
        assert ready, "what was written before the close was lost"
        assert os.read(master, 100) == b"SHUT 0\n"
    finally:
        await broker.aclose()
        os.close(slave)
        os.close(master)
