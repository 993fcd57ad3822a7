"""Branch coverage of the parts that the coexistence tests are about, measured by coverage.py in a run of its own.

What a test goes through is slower while it is watched: no time of such a run is ever told. Worker processes are not
watched (most of them are killed by the tests); what runs there in mode ``process`` runs here in the other modes.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from duodaq.verify._results import Package

MEASURED = ("dual", "bridge", "ports")
_SOURCE = ",".join(f"duodaq.{package}" for package in MEASURED)
_LIMIT_S = 120.0


class CoverageMissingError(Exception):
    """Coverage cannot be measured here; the sentence says why."""


def can_measure() -> str:
    """Why coverage cannot be measured here; empty if it can."""
    return "" if importlib.util.find_spec("coverage") else "coverage.py is not installed (pip install 'duodaq[verify]')"


def measuring(folder: Path) -> list[str]:
    """The words that run a module under the measurement, its data kept in `folder`."""
    rules = folder / "rules"
    rules.touch()
    kept = ("-p", f"--data-file={folder / 'data'}")  # of each process its own
    return ["-m", "coverage", "run", "--branch", f"--rcfile={rules}", *kept, f"--source={_SOURCE}"]


def measured(folder: Path) -> list[Package]:
    """What the processes that were measured into `folder` went through, together.

    Raises:
        CoverageMissingError: They have left nothing that can be read, or it takes too long.
    """
    data, report = folder / "data", folder / "report.json"
    rules = f"--rcfile={folder / 'rules'}"
    _coverage("combine", rules, "-q", f"--data-file={data}", str(folder))
    _coverage("json", rules, "-q", f"--data-file={data}", "-o", str(report))
    try:
        files: dict[str, Any] = json.loads(report.read_bytes())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CoverageMissingError(f"what coverage.py wrote cannot be read: {error}") from error
    return _by_package(files)


def _by_package(files: dict[str, Any]) -> list[Package]:
    found: dict[str, list[dict[str, int]]] = defaultdict(list)
    for path, facts in files.items():
        parts = Path(path).parts
        found[parts[parts.index("duodaq", -4) + 1] if "duodaq" in parts[-4:] else parts[-2]].append(facts["summary"])
    return [_package(name, found[name]) for name in MEASURED if name in found]


def _package(name: str, summaries: list[dict[str, int]]) -> Package:
    keys = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    return Package(name, len(summaries), *(sum(summary[key] for summary in summaries) for key in keys))


def _coverage(command: str, *arguments: str) -> None:
    program = [sys.executable, "-P", "-m", "coverage", command, *arguments]
    try:
        ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise CoverageMissingError(f"coverage {command} took longer than {_LIMIT_S:g} s") from error
    if ended.returncode:
        raise CoverageMissingError(f"coverage {command} failed: {(ended.stderr or ended.stdout).strip()}")
