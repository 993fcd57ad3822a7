"""Where the ports of a lab are for this program: here, in the same process, or behind the lab's control socket."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from duodaq.errors import LifecycleError, PortOpenError
from duodaq.link import LAB_PROTOCOL, find_lab
from duodaq.ports import LabPorts, PortsHere, ports_here


class LabFinder:
    """The ports of one lab, looked for when they are wanted, and again when that lab has ended.

    Args:
        lab: Its name, or its control socket; None for the one in this process, or the only one that is running.
    """

    def __init__(self, lab: str | None) -> None:
        self._lab = lab
        self._turn = threading.Lock()
        self._outside: LabPorts | None = None

    def ports(self) -> PortsHere:
        """The lab's ports.

        Raises:
            PortOpenError: No such lab is running, or it does not answer.
        """
        here = ports_here(self._lab)
        if here is not None:
            return here
        with self._turn:
            if self._outside is None or not self._outside.alive:
                try:
                    self._outside = LabPorts(find_lab(self._lab), LAB_PROTOCOL)
                except LifecycleError as error:
                    raise PortOpenError(error.what, left=error.left) from error
            return self._outside

    def close(self) -> None:
        """Leave the lab, if it was one outside."""
        with self._turn:
            outside, self._outside = self._outside, None
        if outside is not None:
            outside.close()


def holder_name() -> str:
    """In whose name this program holds ports: ``visa:script.py[4711]``."""
    program = Path(sys.argv[0] if sys.argv and sys.argv[0] else sys.executable).name
    if program in ("", "-c", "-m"):
        program = "python"
    plain = program.encode(errors="replace").decode()
    return f"visa:{plain[:40]}[{os.getpid()}]"
