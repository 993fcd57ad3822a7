"""Whose the link of a virtual port is: a living lab keeps it, a dead one's is taken over, or away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duodaq.errors import PortBusyError
from duodaq.model import PortDefinition, VirtualDefinition
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedCodec, ScriptedTransport
from duodaq.watchdog._lines import Line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="virtual ptys are for Linux")

HOLDER = """
import os, signal, sys
from pathlib import Path
from duodaq.ports._virtual_link import VirtualLink
link = VirtualLink(Path(sys.argv[1]))
link.take()
link.point_to("/dev/pts/gone")
if os.fork():  # a child that outlives it keeps nothing of it
    print("here", flush=True)
signal.pause()
"""


class Elsewhere:
    """Another program's lab that has the link."""

    def __init__(self, link: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(link)]
        self._program = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == b"here\n"
        self._program.stdout.close()

    def kill(self) -> None:
        self._program.kill()
        self._program.wait()

    def end(self) -> None:
        os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()


@contextmanager
def lab_elsewhere(link: Path) -> Iterator[Elsewhere]:
    program = Elsewhere(link)
    try:
        yield program
    finally:
        program.end()


async def serving(link: Path) -> Broker:
    """A broker with one port, whose virtual one is at `link`; nothing of it is left if that is refused."""
    broker, definition = Broker(), PortDefinition("p", virtual=VirtualDefinition(pty=str(link)))
    await broker.add(definition, ScriptedCodec(), ScriptedTransport(lambda line: None))
    try:
        await broker.open("p")
    except BaseException:
        await broker.aclose()
        raise
    return broker


async def test_a_living_lab_of_this_program_keeps_its_link(tmp_path: Path) -> None:
    link = tmp_path / "run" / "dev"
    first = await serving(link)
    leads_to = os.readlink(link)
    with pytest.raises(PortBusyError, match="served by a lab of this program already"):
        await serving(link)
    assert os.readlink(link) == leads_to
    await first.aclose()
    assert list(link.parent.iterdir()) == []
    again = await serving(link)
    await again.aclose()


async def test_a_living_lab_of_another_program_keeps_its_link_and_a_killed_one_does_not(tmp_path: Path) -> None:
    link = tmp_path / "run" / "dev"
    with lab_elsewhere(link) as program:
        with pytest.raises(PortBusyError, match=r"served by a lab of another program already \[port p\]"):
            await serving(link)
        assert os.readlink(link) == "/dev/pts/gone"
        program.kill()
        assert link.is_symlink()
        broker = await serving(link)
        assert os.readlink(link) != "/dev/pts/gone"
        await broker.aclose()


def test_the_watchdog_takes_away_the_link_of_a_dead_lab_and_of_no_other(tmp_path: Path) -> None:
    link = tmp_path / "run" / "dev"
    line = Line("p")
    line.link = str(link)
    with lab_elsewhere(link) as program:
        line.remove_link()
        assert link.is_symlink()
        program.kill()
        line.remove_link()
        assert list(link.parent.iterdir()) == []
        line.remove_link()
