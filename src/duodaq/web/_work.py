"""What the page and the API do that takes its time or is kept: scans, presets, logs, exports and repairs of runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from duodaq.app import Lab
from duodaq.web._jobs import Jobs
from duodaq.web._refusal import Refusal
from duodaq.web._requests import (
    ExportRequest,
    LogRequest,
    Nothing,
    PresetLoadRequest,
    PresetSaveRequest,
    RecoverRequest,
    Request,
    ScanAxis,
    ScanRequest,
)
from duodaq.web._visitors import Visitor

Ask = Callable[[str, dict[str, Any], Visitor | None], Awaitable[Any]]
_LABELS = ("sample", "operator", "note", "tags")


class Work:
    """The scans, presets, logs and jobs of a lab, as visitors see them."""

    def __init__(self, lab: Lab, ask: Ask, run_path: Callable[[str], Path]) -> None:
        self._lab = lab
        self._ask = ask
        self._run_path = run_path
        self.jobs = Jobs()
        self.by_name: dict[str, tuple[type[Request], Callable[..., Any]]] = {
            "scan_start": (ScanRequest, self.scan_start),
            "scan_pause": (Nothing, self.scan_pause),
            "scan_resume": (Nothing, self.scan_resume),
            "scan_abort": (Nothing, self.scan_abort),
            "preset_save": (PresetSaveRequest, self.preset_save),
            "preset_load": (PresetLoadRequest, self.preset_load),
            "preset_remove": (Nothing, self.preset_remove),
            "log_start": (LogRequest, self.log_start),
            "log_stop": (Nothing, self.log_stop),
            "export": (ExportRequest, self.export),
            "recover": (RecoverRequest, self.recover),
            "job_cancel": (Nothing, self.job_cancel),
        }

    # ---- scans ---------------------------------------------------------------------------------------------------

    async def scan_start(self, visitor: Visitor, request: ScanRequest) -> Any:
        """Begin a scan; the lab carries it out, and it goes on when the page is closed."""
        told = {name: getattr(request, name) for name in _LABELS if getattr(request, name) is not None}
        wish = {
            "axes": [[one.axis, positions_of(one)] for one in request.axes],
            "read": request.read,
            "settle_s": request.settle_s,
            "snake": request.snake,
            "metadata": told,
        }
        return await self._ask("scan_start", wish, visitor)

    async def scan_pause(self, visitor: Visitor, number: Any, request: Request) -> Any:
        """Have a scan wait before its next point."""
        return await self._ask("scan_pause", {"scan": self._scan(number)}, visitor)

    async def scan_resume(self, visitor: Visitor, number: Any, request: Request) -> Any:
        """Have it go on."""
        return await self._ask("scan_resume", {"scan": self._scan(number)}, visitor)

    async def scan_abort(self, visitor: Visitor, number: Any, request: Request) -> Any:
        """Stop what it moves, at once, and end it with its points."""
        return await self._ask("scan_abort", {"scan": self._scan(number)}, visitor)

    async def scan(self, number: int) -> Any:
        """One scan."""
        return await self._ask("scan_status", {"scan": self._scan(number)}, None)

    def _scan(self, number: Any) -> int:
        known = [one.number for one in self._lab.scans.all()]
        if str(number) not in map(str, known):
            raise Refusal(404, "NoSuchScan", f"no scan {number}; there are: {', '.join(map(str, known)) or 'none'}")
        return int(number)

    # ---- presets -------------------------------------------------------------------------------------------------

    async def preset(self, name: str) -> Any:
        """One preset."""
        return await self._ask("preset", {"name": self._preset(name)}, None)

    async def preset_diff(self, name: str, other: str | None) -> Any:
        """What loading it would change, or how two differ."""
        asked = {"name": self._preset(name), "other": None if other is None else self._preset(other)}
        return await self._ask("preset_diff", asked, None)

    async def preset_save(self, visitor: Visitor, request: PresetSaveRequest) -> Any:
        """Keep what is set now."""
        return await self._ask("preset_save", request.model_dump(), visitor)

    async def preset_load(self, visitor: Visitor, name: str, request: PresetLoadRequest) -> Any:
        """Set what a preset has; whole, or not at all."""
        return await self._ask("preset_load", {"name": self._preset(name), **request.model_dump()}, visitor)

    async def preset_remove(self, visitor: Visitor, name: str, request: Request) -> Any:
        """Remove one."""
        await self._ask("preset_remove", {"name": self._preset(name)}, visitor)
        return {}

    def _preset(self, name: str) -> str:
        known = self._lab.presets.names()
        if name not in known:
            raise Refusal(404, "NoSuchPreset", f"no preset {name!r}; there are: {', '.join(known) or 'none'}")
        return name

    # ---- logs and runs -------------------------------------------------------------------------------------------

    async def log_start(self, visitor: Visitor, request: LogRequest) -> Any:
        """Record for weeks, in the lab's own folder."""
        return {"directory": await self._ask("log_start", request.model_dump(), visitor)}

    async def log_stop(self, visitor: Visitor, name: str, request: Request) -> Any:
        """End a log."""
        known = [one["name"] for one in self._lab.logs()]
        if name not in known:
            raise Refusal(404, "NoSuchLog", f"no log {name!r} is under way; there are: {', '.join(known) or 'none'}")
        return await self._ask("log_stop", {"name": name}, visitor)

    async def export(self, visitor: Visitor, run: str, request: ExportRequest) -> Any:
        """Write a run in other forms, beside the lab: the job that does it."""
        path = self._run_path(run)
        return self.jobs.begin("export", path.name, visitor.name, "export", str(path), *dict.fromkeys(request.to))

    async def recover(self, visitor: Visitor, request: RecoverRequest) -> Any:
        """Repair what crashes left, beside the lab: the job that does it."""
        place = self._lab.runs_directory
        if not place.is_dir():
            raise Refusal(409, "NoRuns", f"there are no runs in {place}")
        flag = ("--all",) if request.all else ()
        return self.jobs.begin("recover", str(place), visitor.name, "recover", str(place), *flag)

    async def job_cancel(self, visitor: Visitor, number: Any, request: Request) -> Any:
        """Cut a job off."""
        found = next((job.number for job in self.jobs.all() if str(job.number) == str(number)), None)
        if found is None:
            raise Refusal(404, "NoSuchJob", f"no job {str(number)[:20]}")
        return await self.jobs.cancel(found)


def positions_of(axis: ScanAxis) -> list[float]:
    """The positions of an axis.

    Raises:
        Refusal: 422, they are said in two ways, or in none.
    """
    span = (axis.start, axis.stop, axis.points)
    if axis.positions is not None and span == (None, None, None):
        return axis.positions
    if axis.positions is None and axis.start is not None and axis.stop is not None and axis.points is not None:
        return [float(one) for one in np.linspace(axis.start, axis.stop, axis.points)]
    raise Refusal(422, "WrongRequest", f"{axis.axis}: give positions, or all of start, stop and points")
