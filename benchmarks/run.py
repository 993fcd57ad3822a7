"""Run every benchmark of this folder, each in a process of its own, and show all goals in one table at the end.

python benchmarks/run.py [--quick] [--list] [NAME ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from _harness import MARK, Goal, goals_of, parser


def main() -> int:
    """Run what was asked for; 1 if any of it failed, with their names at the end. A missed goal is no failure."""
    scripts = {path.stem: path for path in sorted(Path(__file__).parent.glob("[!_]*.py")) if path.name != "run.py"}
    options = parser(__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="which ones; all without a name")
    options.add_argument("--list", action="store_true", help="print their names and end")
    asked = options.parse_args()
    if asked.list:
        sys.stdout.writelines(f"{name}\n" for name in scripts)
        return 0
    if unknown := [name for name in asked.names if name not in scripts]:
        options.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(scripts)}")
    goals: list[Goal] = []
    failed = [name for name in asked.names or scripts if not _run(scripts[name], goals, quick=asked.quick)]
    _show(goals, quick=asked.quick)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _run(script: Path, goals: list[Goal], *, quick: bool) -> bool:
    print(f"── {script.stem}", flush=True)
    command = [sys.executable, str(script), *(["--quick"] if quick else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            if line.startswith(MARK):
                goals += goals_of(line)
            else:
                print(line, end="", flush=True)
    return running.returncode == 0


def _show(goals: list[Goal], *, quick: bool) -> None:
    judged = [goal for goal in goals if goal.limit is not None]
    if not judged:
        return
    print(
        f"\n── all goals (Python {sys.version.split()[0]}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f})"
    )
    print(f"{'figure':58} {'measured':>16}   {'goal':16}")
    for goal in judged:
        print(goal.row(judged=not quick))
    if not quick:
        print(f"{sum(goal.met for goal in judged)} of {len(judged)} goals met")


if __name__ == "__main__":
    sys.exit(main())
