"""Each benchmark runs, in its quick form and for correctness only: no number is judged here.

Those that take longest even so run with the long counts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "benchmarks").glob("[!_]*.py") if path.name != "run.py")
LONG = {"bluesky_events.py", "page_load.py", "worker_calls.py", "worker_deaths.py"}
EACH = [pytest.param(path, marks=[pytest.mark.soak] if path.name in LONG else []) for path in SCRIPTS]


@pytest.mark.parametrize("script", EACH, ids=lambda path: path.name)
def test_benchmark_runs_and_prints_something(script: Path) -> None:
    command = [sys.executable, str(script), "--quick"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_runner_knows_every_benchmark() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--list"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == [path.stem for path in SCRIPTS]


def test_runner_shows_all_goals_in_one_table() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "actor_ask", "actor_restart"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=110)
    table = result.stdout.partition("── all goals")[2]
    assert "plain queue + future" in table
    assert "crash to first answer" in table
    assert "not judged" in table
    assert "goals [" not in result.stdout
