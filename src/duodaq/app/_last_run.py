"""How a run of a lab ended, told by the next one of the same lab file: who is killed cannot say so."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from duodaq.errors import StorageError
from duodaq.link import DIED, LastRun
from duodaq.model import Outcome, ShutdownReport
from duodaq.storage import unfinished_runs
from duodaq.telemetry import get_logger

UNKNOWN = "unknown"
ENDS = (*(outcome.value for outcome in Outcome), DIED, UNKNOWN)
"""How a run may have ended: as the worst of its components, without a word, or there was none."""
_log = get_logger("lab")


def how_it_ended(report: ShutdownReport | None) -> str:
    """The worst that became of a component; clean, if nothing had begun."""
    outcomes = {component.outcome for component in report.components} if report is not None else set[Outcome]()
    return next((one for one in (Outcome.LEAKED, Outcome.FORCED) if one in outcomes), Outcome.CLEAN).value


async def tell_of_last_run(last: LastRun | None, runs: Path) -> None:
    """A line, if the last run did not end in order: when it was last seen, and which recordings in `runs` it left."""
    if last is None or last.ended == Outcome.CLEAN:
        return
    facts = {"pid": last.pid, "last_seen": datetime.fromtimestamp(last.seen_ns / 1e9, UTC).isoformat()}
    if last.ended == DIED:
        with ThreadPoolExecutor(1, "duodaq-last-run") as pool:
            left = await asyncio.get_running_loop().run_in_executor(pool, _unfinished, runs)
        _log.error("the last run of this lab did not end in order", **facts, recordings_to_repair=left)
    else:
        _log.warning("not all of the last run of this lab ended by itself", **facts, ended=last.ended)


def _unfinished(runs: Path) -> list[str]:
    try:
        return [run.name for run in unfinished_runs(runs)] if runs.is_dir() else []
    except (OSError, StorageError):
        return []  # who repairs them says so
