"""A laboratory on simulators, for tests of everything above the runtimes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from duodaq import clock, sim
from duodaq.app import Lab
from duodaq.cli import _app as command_line
from duodaq.model import WebDefinition
from duodaq.testing import rail_lab
from duodaq.testing._pty_bench import PtyDevice

COEXISTENCE = os.environ.get("DUODAQ_COEXISTENCE", "")
"""Where each of the twelve leaves what became of it and what it measured, for ``duodaq verify --results``."""

LAB = """\
[lab]
name = "NAME"
shutdown = "8 s"

[ports.stage]
serial = { path = "STAGE", baud = 19200, rtscts = true }
codec = "esp300"

[ports.dmm]
tcp = "DMM"
codec = "scpi"

[ports.shutter]
serial = { path = "SHUTTER", baud = 9600 }
idle_ms = 20

[instruments.dmm]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
settings = ["function_", "nplc"]
deadline = { default = "5 s", reading = "30 s" }
poll.voltage = { read = "reading", unit = "V", every = "1 s" }

[instruments.shutter]
runtime = "v2"
driver = "duodaq.cli.demo.shutter:Shutter"
port = "shutter"
passive = ["shut", "is_open"]
stop = "SHUT 0\\n"
safe = { shutdown = "stop", crash = "stop", stop_all = "stop" }

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
safe = { shutdown = "stop", crash = "stop", stop_all = "stop" }
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if COEXISTENCE and call.when == "call" and item.path.name == "test_coexistence.py":
        bench, name = item.funcargs["bench"], item.originalname
        facts = {
            "test": name,
            "mode": str(bench.mode),
            "state": report.outcome,
            "duration_s": call.duration,
            "error": "" if report.passed else str(call.excinfo.value),
            "feature": getattr(getattr(call.excinfo, "value", None), "feature", ""),
            "features": list(bench.proven),
            "figures": [{"name": f.name, "value": f.value, "unit": f.unit, "of": f.of} for f in bench.figures.measured],
        }
        Path(COEXISTENCE).mkdir(parents=True, exist_ok=True)
        Path(COEXISTENCE, f"{name}-{bench.mode}.json").write_text(json.dumps(facts))
    return report


class SimulatedLab:
    """An optical table with a stage, a multimeter and a shutter, and a lab file for them, with a name of its own."""

    def __init__(self, table: sim.TableProcess, addresses: dict[str, str], folder: Path, name: str) -> None:
        self.table = table
        self.addresses = addresses
        self.name = name
        text = LAB.replace("NAME", name)
        for key, address in addresses.items():
            text = text.replace(key.upper(), address)
        self.file = folder / "lab.toml"
        self.file.write_text(text)

    def rewrite(self, old: str, new: str) -> None:
        """Change the lab file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def line_of(self, text: str) -> int:
        """On which line of the lab file `text` begins."""
        return self.file.read_text().split(text)[0].count("\n") + 1

    def is_safe(self) -> bool:
        """Read back from the table: whether nothing moves and the shutter is closed, once the devices have obeyed."""
        deadline = clock.Deadline(1.0)
        while True:
            state = self.table.state()
            safe = not state.shutter_open and not any(state.moving.values())
            if safe or deadline.passed:
                return safe
            clock.block(0.02)

    def is_moving(self) -> bool:
        return any(self.table.state().moving.values())

    def until(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        deadline = clock.Deadline(limit_s)
        while not condition():
            assert not deadline.passed, "it did not come to that"
            clock.block(0.02)


class Program:
    """A process in a group of its own, as at a terminal: what it printed, and signals to all of it."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            env={**os.environ, "COLUMNS": "200", **environment},
        )
        self.said = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str) -> None:
        """Read its output up to the line with `text`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            if text in line:
                return
        pytest.fail(f"it ended without saying {text!r}:\n{self.said}")

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C: the whole process group gets it."""
        os.killpg(self._process.pid, number)

    def end(self, limit_s: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        rest, _ = self._process.communicate(timeout=limit_s)
        self.said += rest
        return self._process.returncode

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture(scope="module")
def simulated_table() -> Iterator[tuple[sim.TableProcess, dict[str, str]]]:
    with ExitStack() as stack:
        table = stack.enter_context(sim.launch_table(seed=1))
        stage = stack.enter_context(sim.launch("esp300", table=table))
        dmm = stack.enter_context(sim.launch("scpi-dmm", tcp=True, model="34401A", table=table))
        shutter = stack.enter_context(sim.launch("shutter", table=table))
        yield table, {"stage": stage.address, "dmm": dmm.address, "shutter": shutter.address}


@pytest.fixture
def simulated_lab(
    simulated_table: tuple[sim.TableProcess, dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> SimulatedLab:
    table, addresses = simulated_table
    table.set_shutter(False)
    return SimulatedLab(table, addresses, tmp_path, re.sub(r"\W", "", request.node.name)[:40] + str(os.getpid()))


@pytest.fixture
def start_program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*arguments: str | Path, **environment: str) -> Program:
        started.append(Program(*arguments, **environment))
        return started[-1]

    yield start
    for program in started:
        program.close()


@pytest.fixture
def duodaq_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``duodaq …`` to its end in this process, which has loaded what it needs: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(command_line, "out", Console(highlight=False, color_system=None))
    monkeypatch.setattr(command_line, "err", Console(highlight=False, color_system=None, stderr=True))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["duodaq", *words])
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = _exit_code(command_line.main)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run


def _exit_code(program: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as end:
        program()
    assert isinstance(end.value.code, int), end.value
    return end.value.code


@pytest.fixture
def duodaq_program() -> Callable[..., Any]:
    """Likewise, as a program of its own: where it matters that it is another process."""

    def run(*arguments: str | Path, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "duodaq.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=limit_s,
            env={**os.environ, "COLUMNS": "200"},
            check=False,
        )

    return run


@pytest.fixture
def serve_rails(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[tuple[Any, Lab]]]:
    """A lab of two rails with its page: a client of that, and the lab. What is named goes into its `[web]`."""
    httpx = pytest.importorskip("httpx")
    page_server: Any = pytest.importorskip("duodaq.web").PageServer

    @asynccontextmanager
    async def serving(requests_per_s: float = 1000.0, **web: Any) -> AsyncIterator[tuple[Any, Lab]]:
        definition = replace(rail_lab(tmp_path), web=WebDefinition(port=0, **web))
        async with (
            Lab(definition) as lab,
            page_server(lab, requests_per_s=requests_per_s) as page,
            httpx.AsyncClient(base_url=page.address, trust_env=False, timeout=60.0) as client,
        ):
            yield client, lab

    return serving


@pytest.fixture
def device() -> Iterator[PtyDevice]:
    device = PtyDevice()
    yield device
    device.close()


@pytest.fixture(params=["here", "over a link"])
def where(request: pytest.FixtureRequest) -> str:
    """Where the users of the ports are: in the broker's process, or at the other end of a worker's link."""
    return request.param
