"""Starts simulators and the optical table as child processes that end when this process does.

Each child holds the other end of its stdin: when this process dies, however it dies, that ends, and so does the child.
The folder of its address is made and removed by the child itself; here it is removed only after one that was killed.
(PR_SET_PDEATHSIG would fire when the *thread* that launched a child ends.) Children are in a session of their own, so
that Ctrl-C at the terminal stops the lab first and not the instruments under it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import ConfigError, PortLostError, PortTimeoutError
from duodaq.sim._faults import Faults
from duodaq.sim.table import TableClient, TableState, Truth

_START_S = 60.0
_ANSWER_S = 10.0


class ChildProcess:
    """A child process with a control line. Safe from any thread; every wait has a deadline."""

    def __init__(self, arguments: Sequence[str], *, own_folder: bool) -> None:
        self._own_folder = own_folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments, "--control"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._rest = b""
        self.instrument = self.address = ""
        try:
            ready = self._read_line(_START_S)
            if "refused" in ready:
                raise ConfigError(ready["refused"])
        except BaseException:
            self.stop()
            raise
        self.instrument = str(ready["instrument"])
        self.address = str(ready["address"])
        self.addresses: dict[str, str] = ready.get("addresses", {})

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def stop(self, timeout_s: float = 5.0) -> int:
        """End the child: asked first, killed when it does not listen. Idempotent. Its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        if self._own_folder and self.address:
            shutil.rmtree(Path(self.address).parent, ignore_errors=True)
        return code

    def kill(self) -> None:
        """SIGKILL, as a crash would have it."""
        self._process.kill()
        self.stop()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, *request: Any) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
            except (OSError, ValueError) as exc:
                raise PortLostError(f"the simulator process {self.pid} is gone") from exc
            answer = self._read_line(_ANSWER_S)
        if "error" in answer:
            raise ValueError(f"simulator {self.instrument}: {answer['error']}")
        return answer["value"]

    def _read_line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = Deadline(timeout_s)
        while b"\n" not in self._rest:
            if not select.select([descriptor], [], [], deadline.left_s)[0]:
                raise PortTimeoutError(f"the simulator process {self.pid} did not answer within {timeout_s:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise PortLostError(f"the simulator process {self.pid} ended (exit code {self._process.wait(5)})")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


class SimProcess(ChildProcess):
    """One simulated instrument in a process of its own. On a pty its address is a symlink that survives `replug`."""

    def report(self) -> dict[str, Any]:
        """What the instrument counted: exchanges, interleavings, produced by channel, and so on."""
        return self._ask("report")

    def fault(self, faults: Faults | str | None = None, **fields: Any) -> None:
        """Misbehave like this from now on; without arguments: behave."""
        chosen = Faults.parse(faults) if isinstance(faults, str) else faults or Faults(**fields)
        self._ask("faults", chosen.as_dict())

    def unplug(self) -> None:
        """Pull the plug: clients see the line die."""
        self._ask("unplug")

    def replug(self) -> None:
        """Plug in again at the same address."""
        self._ask("replug")

    def power_cycle(self) -> None:
        """Switch the instrument off and on."""
        self._ask("power_cycle")

    def __enter__(self) -> SimProcess:
        return self


class TableProcess(ChildProcess):
    """The optical table in a process of its own."""

    def client(self) -> TableClient:
        """A new connection to the table; the caller closes it."""
        return TableClient(self.address)

    def truth(self) -> Truth:
        """What was drawn from the seed."""
        with self.client() as client:
            return client.truth()

    def state(self) -> TableState:
        """How everything stands now."""
        with self.client() as client:
            return client.state()

    def counts(self) -> dict[str, dict[str, Any]]:
        """The counts of every instrument, as last deposited (at most 0.1 s ago)."""
        with self.client() as client:
            return client.counts()

    def set_shutter(self, is_open: bool) -> None:
        """Open or close the shutter by hand."""
        with self.client() as client:
            client.set_shutter(is_open)

    def __enter__(self) -> TableProcess:
        return self


def launch(
    name: str,
    *,
    tcp: bool | int = False,
    hislip: bool | int = False,
    vxi11: bool | int = False,
    link: str | Path | None = None,
    table: str | TableProcess | None = None,
    paced: bool = False,
    faults: Sequence[str] = (),
    model: str | None = None,
    seed: int = 0,
    label: str | None = None,
) -> SimProcess:
    """Start a simulator as a child process and wait until it is ready.

    Args:
        name: One of `duodaq.sim.NAMES`.
        tcp: Serve on a TCP port (an int chooses it) instead of a pty.
        hislip, vxi11: Serve a SCPI instrument by that protocol, likewise; its address is a VISA resource name.
        link: Where the pty's symlink goes; in a folder of its own by default.
        table: The optical table, or its address; without one the simulator has a small table of its own.
        paced: At the line's real speed; otherwise it answers at once.
        faults: Words for `Faults.parse`.
        model: Which model, where there are several.
        seed: For noise and faults.
        label: Name of its counts at the table.

    Raises:
        PortLostError: It ended before it was ready; the reason is on stderr.
        PortTimeoutError: It was not ready in time, and has been stopped.
    """
    arguments = ["duodaq.sim", name, "--seed", str(seed)]
    ports = {"--tcp": tcp, "--hislip": hislip, "--vxi11": vxi11}
    chosen = next((option for option, port in ports.items() if port is not False), None)
    if chosen is not None:
        arguments += [chosen, str(0 if ports[chosen] is True else ports[chosen])]
    else:
        arguments += ["--pty", "--link", str(link)] if link is not None else ["--pty", "--own-folder"]
    if table is not None:
        arguments += ["--table", table if isinstance(table, str) else table.address]
    for option, value in (("--model", model), ("--label", label)):
        arguments += [option, value] if value else []
    for fault in faults:
        arguments += ["--fault", fault]
    return SimProcess(arguments if paced else [*arguments, "--unpaced"], own_folder="--own-folder" in arguments)


def launch_table(seed: int = 0, *, socket: str | Path | None = None, shutter_open: bool = False) -> TableProcess:
    """Start the optical table as a child process and wait until it is ready."""
    arguments = ["duodaq.sim.table", "--seed", str(seed), "--shutter", "open" if shutter_open else "closed"]
    if socket:
        return TableProcess([*arguments, "--socket", str(socket)], own_folder=False)
    return TableProcess(arguments, own_folder=True)
