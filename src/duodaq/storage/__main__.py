"""Chores beside a lab, in a process of their own: ``python -m duodaq.storage recover DIR``, ``… finalise RUN FORM …``,
``… export RUN FORM …``.

It prints a line of JSON for each run, and takes the processor only when nobody else wants it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duodaq.errors import DuodaqError
from duodaq.storage.export import FORMATS, export, finalise_and_note
from duodaq.storage.journal import recover, unfinished_runs
from duodaq.storage.reading import open_run, runs

NICE = 10


def main() -> int:
    """Do the chore; 1 if any part of it failed."""
    parser = argparse.ArgumentParser(prog="python -m duodaq.storage", description=__doc__)
    chores = parser.add_subparsers(dest="chore", required=True)
    recovering = chores.add_parser("recover")
    recovering.add_argument("directory", type=Path)
    recovering.add_argument("--all", action="store_true", help="check runs that ended, too")
    exporting = chores.add_parser("export")
    exporting.add_argument("run", type=Path)
    exporting.add_argument("forms", nargs="+", metavar="FORM", help=", ".join(FORMATS))
    finalising = chores.add_parser("finalise")
    finalising.add_argument("run", type=Path)
    finalising.add_argument("forms", nargs="*", metavar="FORM", help=", ".join(FORMATS))
    finalising.add_argument("--remove-journal", action="store_true")
    asked = parser.parse_args()
    os.nice(NICE)
    told = _DOES[asked.chore](asked)
    failed = False
    try:
        for line in told:
            failed = failed or bool(line.get("error"))
            sys.stdout.write(f"{json.dumps(line, default=str)}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    return int(failed)


def _recovered(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    places = unfinished_runs(asked.directory)
    if asked.all:
        places = sorted({*places, *(run.path for run in runs(asked.directory) if run.state == "finished")})
    for run in places:
        try:
            found = recover(run, finished_too=asked.all)
        except DuodaqError as error:
            yield {"run": str(run), "error": str(error)}
        else:
            rows = sum(found.rows.values())
            yield {"run": str(run), "rows": rows, "gaps": len(found.gaps), "cut_bytes": found.cut_bytes}


def _finalised(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    try:
        told = finalise_and_note(asked.run, asked.forms, remove_journal=asked.remove_journal)
    except (DuodaqError, OSError) as error:
        told = {"error": str(error)}
    yield {"run": str(asked.run), **told}


def _exported(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for form in asked.forms:
        told: dict[str, Any] = {"run": str(asked.run), "format": form}
        try:
            done = export(open_run(asked.run), form)
        except (DuodaqError, OSError, ImportError) as error:
            yield {**told, "error": str(error)}
        else:
            yield {**told, "files": done.files, "bytes": done.size, "plugin": done.plugin, "missing": done.missing}


_DOES = {"recover": _recovered, "finalise": _finalised, "export": _exported}


if __name__ == "__main__":
    sys.exit(main())
