"""The wheel alone, in a new environment and outside any checkout, is enough for the twelve tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
def test_an_installed_wheel_runs_the_twelve_with_what_its_extra_brings(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path) -> str:
        ended = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False, timeout=900
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    source = tmp_path / "source"  # a build leaves things where it builds
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(python, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source)
    wheel = next(tmp_path.glob("duodaq-*.whl"))
    run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", f"duodaq[verify] @ {wheel.as_uri()}")
    said = run(tmp_path / "venv" / "bin" / "duodaq", "verify", "--mode", "inline", "--no-coverage", "--json")
    facts = json.loads(said.splitlines()[-1])
    assert (facts["passed"], facts["ran"]) == (12, 12)
    assert (tmp_path / "coexistence" / "summary.html").exists()
