"""`duodaq verify` as a person runs it: it passes, a broken product fails it, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duodaq import clock, sim
from duodaq.cli._app import app, main
from duodaq.errors import ConfigError
from duodaq.verify import Plan, SuiteError, read_pages, verify_coexistence
from duodaq.verify._coverage import CoverageMissingError, measured
from duodaq.verify._hardware import SHOWS, HardwarePlan, small_move, verify_hardware

QUICK = "test_dual_runtime_startup_shutdown"
BROKEN = ("test_v2_and_v4_actors_concurrent", "commands_take_turns")


def verify(*arguments: str | Path) -> Any:
    """Run ``duodaq verify …`` in this process; its exit code and what it said on stdout."""
    return CliRunner().invoke(app, ["verify", *map(str, arguments)], catch_exceptions=True)


# ---- the suite ---------------------------------------------------------------------------------------------------


def test_a_test_that_passes_is_told_and_written(tmp_path: Path) -> None:
    ran = verify("--mode", "inline", "--test", QUICK, "--no-coverage", "--out", tmp_path, "--json")
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout.splitlines()[-1])
    assert (facts["passed"], facts["ran"], facts["failed"]) == (1, 1, [])
    kept, wrong = read_pages(tmp_path)
    assert wrong == []
    assert [(test.test, test.mode, test.state) for test in kept.tests] == [(QUICK, "inline", "passed")]
    assert {"order", "ports last", "nothing is left"} <= set(kept.tests[0].features)
    assert len(kept.index) == 12
    assert all(len(entry.sabotages) >= 3 for entry in kept.index)
    assert kept.absent.keys() == {"coverage", "hardware", "takeover"}


def test_a_broken_product_fails_and_every_page_says_so(tmp_path: Path) -> None:
    name, sabotage = BROKEN
    ran = verify("--mode", "inline", "--test", name, "--sabotage", sabotage, "--out", tmp_path)
    assert ran.exit_code == 1
    assert "0 of 1 passed" in ran.stdout
    kept, wrong = read_pages(tmp_path)
    assert wrong == []
    assert (kept.tests[0].state, kept.tests[0].feature) == ("failed", "overlap")
    report = (tmp_path / "test-report.md").read_text()
    assert f"sabotaged on purpose: {sabotage}".replace("_", "\\_") in report
    assert f"- `{name}` (inline), at the feature “overlap”" in report


def test_what_cannot_be_run_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["duodaq", "verify", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no pages can be written there" in " ".join(capsys.readouterr().err.split())


def test_motion_without_instruments_is_refused(tmp_path: Path) -> None:
    ran = verify("--allow-motion", "--out", tmp_path)
    assert isinstance(ran.exception, ConfigError)
    assert "nothing moves without instruments" in str(ran.exception)


def test_a_test_kit_that_cannot_be_loaded_is_no_failed_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.verify._suite_process.SUITE", "duodaq.testing.no_such_module")
    with pytest.raises(SuiteError, match="No module named"):
        verify_coexistence(Plan(("inline",), (QUICK,), coverage=False))


def marked(word: str) -> list[str]:
    """The processes, whoever their parents are, that have `word` in their environment."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def test_ctrl_c_ends_all_that_was_started_and_writes_no_pages(
    start_program: Callable[..., Any], tmp_path: Path
) -> None:
    word = f"duodaq-verify-{os.getpid()}"
    asked = ("verify", "--mode", "inline", "--test", "test_data_flow_v2_to_v4", "--no-coverage", "--out", tmp_path)
    program = start_program("-m", "duodaq.cli", *asked, MARK=word)
    limit = clock.Deadline(60.0)
    while not any("duodaq.sim" in command for command in marked(word)):
        assert not limit.passed, "no simulator was started"
        clock.block(0.02)
    program.interrupt()
    assert program.end() == 130
    assert "Interrupted" in program.said
    limit = clock.Deadline(10.0)
    while left := marked(word):
        assert not limit.passed, left
        clock.block(0.05)
    assert list(tmp_path.iterdir()) == []


# ---- real instruments --------------------------------------------------------------------------------------------

LAB = """\
[lab]
name = "NAME"

[ports.stage]
serial = { path = "STAGE", baud = 19200, rtscts = true }
codec = "esp300"

[ports.dmm]
tcp = "DMM"
codec = "scpi"

[ports.laser]
serial = { path = "LASER" }
codec = "maitai"

[instruments.dmm]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
settings = { nplc = 10 }
poll.voltage = { read = "reading", unit = "V", every = "1 s" }

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
safe = { shutdown = "stop", crash = "stop" }

[instruments.laser]
runtime = "v4"
driver = "duodaq:MaiTai"
port = "laser"
args = { watchdog_s = 5 }
"""
RUDE = '''\
class Rude:
    """A driver that moves its axis as soon as it is there."""

    def __init__(self, serial):
        self.serial = serial
        serial.write(b"1PA1\\r")

    def position(self):
        self.serial.write(b"1TP\\r")
        return float(self.serial.readline())
'''


class Instruments:
    """A stage, a multimeter and a laser, and the lab file that names them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.table = stack.enter_context(sim.launch_table(1))
        self.stage = stack.enter_context(sim.launch("esp300", table=self.table))
        self.dmm = stack.enter_context(sim.launch("scpi-dmm", tcp=True, model="34401A", table=self.table))
        self.laser = stack.enter_context(sim.launch("maitai", model="MaiTai HP/warm", table=self.table))
        text = LAB.replace("STAGE", self.stage.address).replace("DMM", self.dmm.address)
        text = text.replace("LASER", self.laser.address).replace("NAME", f"verify{os.getpid()}")
        self.file = folder / "lab.toml"
        self.file.write_text(text)


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instruments]:
    with ExitStack() as stack:
        yield Instruments(stack, tmp_path_factory.mktemp("hardware"))


def verified(file: Path, out: Path, *more: str) -> tuple[int, dict[tuple[str, str], str], str]:
    """The exit code, the state of every test on every instrument, and the report."""
    ran = verify("--hardware", file, "--load", "300 ms", "--out", out, *more)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    kept, wrong = read_pages(out)
    assert wrong == []
    states = {(test.test, test.mode): test.state for test in kept.tests}
    return ran.exit_code, states, (out / "test-report.md").read_text()


def test_instruments_are_only_read(instruments: Instruments, tmp_path: Path) -> None:
    moves, dmm = len(instruments.stage.report()["moves"]), instruments.dmm.report()["commands"]
    code, states, report = verified(instruments.file, tmp_path)
    assert code == 0, report
    for name in SHOWS.keys() - {"moves_and_returns", "lets_nothing_out"}:
        assert {states[name, one] for one in ("dmm", "stage", "laser")} == {"passed"}, name
    assert {states["moves_and_returns", one] for one in ("dmm", "stage", "laser")} == {"not run"}
    assert states["lets_nothing_out", "laser"] == "passed"
    assert instruments.dmm.report()["commands"] > dmm
    assert len(instruments.stage.report()["moves"]) == moves
    assert instruments.stage.report()["stops"] == []
    assert not instruments.table.state().shutter_open
    written = report.partition("## What was written")[2].partition("\n## ")[0]
    assert "1TP" in written
    assert not re.search(r"`(?:VOLT:NPLC \d|\d?(?:PA|PR|ST|MO)|TIM:WATC|SHUT:)", written), written


def test_axes_go_a_small_way_and_come_back(instruments: Instruments, tmp_path: Path) -> None:
    before = instruments.stage.report()["moves"]
    code, states, report = verified(instruments.file, tmp_path, "--allow-motion")
    assert code == 0, report
    assert states["moves_and_returns", "stage"] == "passed"
    assert states["is_only_read", "stage"] == "not run"
    assert states["is_only_read", "laser"] == "passed"
    made = instruments.stage.report()["moves"][len(before) :]
    assert [move["target"] for move in made] == [0.1, 0.0]
    assert instruments.table.state().positions[1] == pytest.approx(0.0, abs=0.01)
    assert not instruments.table.state().shutter_open
    assert not instruments.table.state().laser_on


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 4)])
def test_whatever_asks_it_to_end_stops_the_axis_and_is_no_verdict(
    number: int, times: int, instruments: Instruments, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    before = instruments.stage.report()
    asked = ("--hardware", instruments.file, "--allow-motion", "--load", "300 ms", "--out", tmp_path / "out")
    program = start_program("-m", "duodaq.cli", "verify", *asked)
    limit = clock.Deadline(60.0)
    while len(instruments.stage.report()["moves"]) == len(before["moves"]):
        assert not limit.passed, program.said
        clock.block(0.005)
    for _ in range(times):
        program.interrupt(number)
        clock.block(0.002)
    assert program.end() == 130
    assert "Interrupted" in program.said
    assert "Traceback" not in program.said
    assert "failed" not in program.said, "what was interrupted is no fault of an instrument"
    assert "Future exception" not in program.said
    assert len(instruments.stage.report()["stops"]) > len(before["stops"])
    at = instruments.table.state().positions[1]
    clock.block(0.2)
    assert instruments.table.state().positions[1] == at
    assert list((tmp_path / "out").iterdir()) == []


def test_a_driver_that_moves_by_itself_is_found_out(instruments: Instruments, tmp_path: Path) -> None:
    (tmp_path / "rude.py").write_text(RUDE)
    text = instruments.file.read_text().partition("[ports.dmm]")[0]
    text += '[instruments.rude]\nruntime = "v2"\ndriver = "./rude.py:Rude"\nport = "stage"\n'
    text += 'poll.position = { call = "position", unit = "mm", every = "1 s" }\n'
    (tmp_path / "lab.toml").write_text(text)
    code, states, report = verified(tmp_path / "lab.toml", tmp_path / "out")
    assert code == 1
    assert states["is_only_read", "rude"] == "failed"
    assert "1PA1" in report


def test_an_instrument_that_is_not_there_fails_and_the_others_are_verified(
    instruments: Instruments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.verify._hardware.ANSWERS_S", 0.2)
    (tmp_path / "lab.toml").write_text(instruments.file.read_text().replace("watchdog_s = 5", "timeout_s = 0.2"))
    instruments.laser.fault("stall")
    try:
        code, states, report = verified(tmp_path / "lab.toml", tmp_path / "out")
    finally:
        instruments.laser.fault()
    assert code == 1
    assert states["answers", "laser"] == "failed", report
    assert states["holds_under_load", "laser"] == "not run"
    assert states["holds_under_load", "dmm"] == states["holds_under_load", "stage"] == "passed"


@pytest.mark.parametrize(("port", "instrument"), [("STAGE", "stage"), ("DMM", "dmm")])
def test_an_instrument_whose_port_is_not_there_fails_and_the_others_are_verified(
    port: str, instrument: str, instruments: Instruments, tmp_path: Path
) -> None:
    nowhere = {"stage": str(tmp_path / "nowhere"), "dmm": "127.0.0.1:9"}[instrument]
    here = {"stage": instruments.stage.address, "dmm": instruments.dmm.address}[instrument]
    (tmp_path / "lab.toml").write_text(instruments.file.read_text().replace(here, nowhere))
    code, states, report = verified(tmp_path / "lab.toml", tmp_path / "out")
    assert code == 1
    assert {test: state for (test, who), state in states.items() if who == instrument} == dict.fromkeys(
        SHOWS, "not run"
    ) | {"answers": "failed"}
    assert nowhere in report
    others = {"stage", "dmm", "laser"} - {instrument}
    assert {states[test, who] for test in ("answers", "lets_go", "is_only_read") for who in others} == {"passed"}


LAMP = """\
from pathlib import Path

SAID = Path(__file__).with_name("said")


class Lamp:
    def __init__(self, watchdog_s=0.0):
        self.at = {"x": 1.0, "y": 1.0}
        self.say(f"watchdog {watchdog_s:g}")

    def say(self, words):
        with SAID.open("a") as file:
            file.write(words + "\\n")

    emission = property(lambda self: self.lit if hasattr(self, "lit") else False)

    @emission.setter
    def emission(self, lit):
        self.lit = lit
        self.say(f"emission {lit}")

    def position(self, axis):
        return self.at[axis]

    def move(self, axis, target):
        self.at[axis] = target
        self.say(f"{axis} to {target:g}")

    def dim(self):
        self.say(f"dim: emission is {self.emission}")
"""
LAMP_LAB = """\
[lab]
name = "lamps"

[instruments.lamp]
runtime = "v2"
driver = "./lamp.py:Lamp"
args = { watchdog_s = 5.0 }
settings = { emission = true }
safe = { shutdown = { call = "dim" } }
axes.x = { number = 1, unit = "mm", limits = [0, 2] }
axes.y = { number = 2, unit = "mm" }
poll."x.position" = { call = "position", args = ["x"], unit = "mm", every = "10 s" }
poll."y.position" = { call = "position", args = ["y"], unit = "mm", every = "10 s" }
"""


@pytest.mark.parametrize(("moving", "said"), [(True, ["x to 1.02", "x to 1", "dim: emission is False"]), (False, [])])
def test_nothing_is_ever_made_to_emit_and_an_axis_without_limits_is_named(
    moving: bool, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "lamp.py").write_text(LAMP)
    (tmp_path / "lab.toml").write_text(LAMP_LAB)
    results = verify_hardware(HardwarePlan(tmp_path / "lab.toml", allow_motion=moving, load="20 ms"))
    assert results.failed == []
    assert (tmp_path / "said").read_text().splitlines() == ["watchdog 0", *said]
    moved = results.of("moves_and_returns", "lamp")
    assert moved is not None
    assert (moved.state, [figure.name for figure in moved.figures]) == (
        ("passed", ["x: moved there and back by", "y: not moved, without limits in the lab file"])
        if moving
        else ("not run", [])
    )


def test_where_no_axis_has_limits_none_is_moved(tmp_path: Path) -> None:
    (tmp_path / "lamp.py").write_text(LAMP)
    (tmp_path / "lab.toml").write_text(LAMP_LAB.replace(", limits = [0, 2]", ""))
    results = verify_hardware(HardwarePlan(tmp_path / "lab.toml", allow_motion=True, load="20 ms"))
    moved = results.of("moves_and_returns", "lamp")
    assert moved is not None
    assert (moved.state, moved.error) == ("not run", "no limits in the lab file: axis x, y")
    assert (tmp_path / "said").read_text().splitlines() == ["watchdog 0", "dim: emission is False"]


def test_coverage_that_takes_too_long_is_missing_and_the_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(program: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(program, options["timeout"])

    monkeypatch.setattr("subprocess.run", hangs)
    with pytest.raises(CoverageMissingError, match="coverage combine took longer than 120 s"):
        measured(tmp_path)


@pytest.mark.parametrize("load", ["never", "0 s", "2 h", "soon"])
def test_a_time_that_is_none_is_refused(load: str, instruments: Instruments, tmp_path: Path) -> None:
    ran = verify("--hardware", instruments.file, "--load", load, "--out", tmp_path)
    assert isinstance(ran.exception, ConfigError)
    assert "--load" in str(ran.exception)


@pytest.mark.parametrize(
    ("start", "limits", "target"),
    [(0.0, (0.0, 25.0), 0.1), (25.0, (0.0, 25.0), 24.9), (0.0, (0.0, 1.0), 0.01), (-1.0, (0.0, 25.0), None)],
)
def test_a_small_move_stays_within_the_limits(start: float, limits: tuple[float, float], target: float | None) -> None:
    assert small_move(start, limits) == (None if target is None else pytest.approx(target))
