from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from duodaq.sim._faults import Faults
from duodaq.sim._launch import ChildProcess
from duodaq.sim.replay._matching import AtEnd


class ReplayProcess(ChildProcess):
    """Recorded instruments in a process of their own; `addresses` says where each port is, by name."""

    def report(self) -> dict[str, dict[str, Any]]:
        """By port: the tally, what unknown commands came and how often, and how many exchanges broke off."""
        return self._ask("report")

    def fault(self, faults: Faults | str | None = None, *, port: str | None = None) -> None:
        """Misbehave like this from now on, on one port or all; without faults: behave."""
        chosen = Faults.parse(faults) if isinstance(faults, str) else faults or Faults()
        self._ask("faults", chosen.as_dict(), port)

    def unplug(self, port: str | None = None) -> None:
        """Pull the plug of one port, or all: clients see the line die."""
        self._ask("unplug", port)

    def replug(self, port: str | None = None) -> None:
        """Plug in again at the same address."""
        self._ask("replug", port)

    def __enter__(self) -> ReplayProcess:
        return self


def launch_replay(
    wirelog: str | Path,
    *ports: str,
    endpoint: Literal["pty", "tcp"] | None = None,
    speed: float | Literal["max"] = "max",
    unknown: str = "silent",
    at_end: AtEnd = "repeat",
    in_order: bool = False,
    faults: Sequence[str] = (),
    seed: int = 0,
) -> ReplayProcess:
    """Serve a recording in a child process and wait until it is ready.

    Args:
        wirelog: The wire log, or the folder of its recording.
        ports: Which of its ports; all of them by default.
        endpoint: Where; by default on pseudo terminals for serial lines and on TCP for sockets, as recorded.
        speed: 1 keeps the recorded times, 10 is ten times faster, ``"max"`` answers at once.
        unknown: ``silent``, ``error=TEXT``, ``nearest`` or ``stop``.
        at_end: What a query gets when the recorded answers of its state are used up.
        in_order: Answers of one state strictly in recorded order, instead of actions' before polls'.
        faults: Words for `Faults.parse`.
        seed: Of those faults.

    Raises:
        ConfigError: It is no wire log, it has no such port, or an option is wrong. Nothing is served.
        PortLostError: It ended before it was ready; the reason is on stderr.
    """
    arguments = ["duodaq.sim.replay", str(wirelog), "--speed", str(speed), "--unknown", unknown, "--at-end", at_end]
    arguments += ["--seed", str(seed), "--own-folder"]
    arguments += {"pty": ["--pty"], "tcp": ["--tcp", "0"], None: []}[endpoint]
    arguments += ["--in-order"] if in_order else []
    for option, values in (("--port", ports), ("--fault", faults)):
        for value in values:
            arguments += [option, value]
    return ReplayProcess(arguments, own_folder=False)
