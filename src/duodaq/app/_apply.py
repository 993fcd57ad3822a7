"""Making a running lab what its lab file says now: a plan, then its units one after the other.

Rules for whoever edits this:

* One at a time. Whoever asked may leave: what was begun is carried out to its end, for half a change is none.
* A file that is wrong, a lab that is not running, a stop that is latched: nothing has changed.
* `Lab.definition` is what stands, at any moment: it follows each unit, not the wish.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from duodaq.config import LabPlan, Unit, load_lab, name_of, plan_change
from duodaq.dual import Change, UnitReport
from duodaq.errors import ConfigError, LifecycleError, NotInControlError, UnsafeStateError
from duodaq.model import AlarmDefinition, InstrumentDefinition, LabDefinition, ManagerState, PortDefinition
from duodaq.telemetry import get_logger

if TYPE_CHECKING:
    from duodaq.app._lab import Lab

_N = TypeVar("_N", InstrumentDefinition, PortDefinition, AlarmDefinition)
_log = get_logger("lab")


class ApplyReport(msgspec.Struct, frozen=True):
    """What became of a plan.

    Attributes:
        plan: The plan, as plain values.
        units: What became of each of its units, in their order.
        alarms: The alarms that were taken over.
        left: Alarms that stay as they were, because their instrument does, and why.
    """

    plan: dict[str, Any]
    units: tuple[UnitReport, ...]
    alarms: tuple[str, ...] = ()
    left: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether the lab is all that its file says."""
        return not self.left and not self.plan["refused"] and all(one.done and not one.stands for one in self.units)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**msgspec.json.decode(msgspec.json.encode(self)), "complete": self.complete}


class Applier:
    """Applies lab files to one running lab, on its loop."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._task: asyncio.Task[ApplyReport] | None = None
        self._touched: frozenset[str] = frozenset()

    @property
    def busy(self) -> bool:
        """Whether a file is being applied."""
        return self._task is not None and not self._task.done()

    def check(self, instrument: str) -> None:
        """Whether something may begin that will need an instrument for some time.

        Raises:
            LifecycleError: A file is being applied that changes it. Nothing has begun.
        """
        if self.busy and instrument in self._touched:
            what, left = "a lab file that changes it is being applied", "nothing has begun; try again when that is done"
            raise LifecycleError(what, instrument=instrument, left=left)

    async def plan(self, file: str | Path | None = None) -> LabPlan:
        """What would be done. Nothing is.

        Args:
            file: The lab file; that of the lab if none is given.

        Raises:
            ConfigError: Something in the file is wrong, or it is of another lab.
        """
        wanted = file if file is not None else self._lab.definition.file
        if wanted is None:
            raise ConfigError("this lab has no file", remedy="Name one")
        with ThreadPoolExecutor(1, "lab file") as pool:  # looking for drivers may take longer than a loop may stand
            meant = await asyncio.get_running_loop().run_in_executor(pool, load_lab, wanted)
        return plan_change(self._as_it_lives(), meant)

    def _as_it_lives(self) -> LabDefinition:
        """The lab as described, and what has moved to another runtime than described as it lives there."""
        manager, known = self._lab.manager, self._lab.definition
        here = {one.id: manager.definition(one.id) for one in known.instruments if manager.has(one.id)}
        lives = (here.get(one.id, one) for one in known.instruments)
        moved = tuple(
            is_ if is_.runtime != one.runtime else one for one, is_ in zip(known.instruments, lives, strict=True)
        )
        return replace(known, instruments=moved)

    def held(self, plan: LabPlan) -> dict[str, str]:
        """Who holds control of what the plan touches, by instrument, beside whoever asks."""
        found: dict[str, str] = {}
        for name in _instruments_of(plan):
            try:
                self._leave_in_hand(name)
            except NotInControlError as error:
                found[name] = error.what
        return found

    async def apply(self, file: str | Path | None = None, digest: str | None = None) -> ApplyReport:
        """Change what differs, and nothing else; what became of each part.

        Args:
            file: The lab file; that of the lab if none is given.
            digest: Of the plan that was shown: if there is another one by now, nothing is done.

        Raises:
            ConfigError: Something in the file is wrong, or it is of another lab. Nothing has changed.
            LifecycleError: The lab is not running, another file is being applied, or the plan is another one by now.
                Nothing has changed.
            UnsafeStateError: A stop is latched. Nothing has changed.
            NotInControlError: Somebody else holds control of an instrument that would change, or a scan moves or reads
                it, be it one's own. Nothing has changed.

        Cancellation: What was begun goes on to its end.
        """
        self._check()
        plan = await self.plan(file)
        self._check()  # once more: meanwhile others went on
        if digest is not None and digest != plan.digest:
            raise LifecycleError(
                "the file, or the lab, is not what it was when the plan was made", left="nothing has changed"
            )
        for name in _instruments_of(plan):
            self._leave_in_hand(name)
        self._touched = frozenset(_instruments_of(plan))
        self._task = asyncio.create_task(self._carry_out(plan), name="apply")
        self._task.add_done_callback(_look_at)
        return await asyncio.shield(self._task)

    async def aclose(self) -> None:
        """Begin no further step: the lab ends."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _leave_in_hand(self, instrument: str) -> None:
        """NotInControlError for what somebody else controls, and for what a scan uses, which would lose it."""
        self._lab.control.check(instrument, "apply")
        scan = self._lab.scans.using(instrument)
        if scan is not None:
            holder, end = f"scan {scan.number} of {scan.who}", f"duodaq scans abort {scan.number}"
            what, left = f"{holder} reads or moves it; nothing has changed", f"when it has ended, or after `{end}`"
            raise NotInControlError(what, instrument=instrument, command="apply", holder=holder, left=left)

    def _check(self) -> None:
        if self.busy:
            raise LifecycleError("a lab file is being applied already", left="nothing has changed")
        state = self._lab.manager.state
        if state is not ManagerState.RUNNING:
            raise LifecycleError(f"the lab is {state}, not running", left="nothing has changed")
        if moving := ", ".join(sorted(self._lab.migration.on_the_way)):
            raise LifecycleError(f"{moving} is on its way to the other runtime", left="nothing has changed")
        if self._lab.manager.broker.latched:
            what = "a stop is latched, and what starts may not move or emit"
            raise UnsafeStateError(what, left="nothing has changed; reset it first: duodaq stop-all --reset")

    async def _carry_out(self, plan: LabPlan) -> ApplyReport:
        lab = self._lab
        lab.note_in_runs("apply", {"plan": _names(plan)})
        unopened: set[str] = set()
        reports = [await self._carry_out_unit(plan, unit, unopened) for unit in plan.units]
        reports = await self._close_unused(plan, reports)
        alarms, left = self._apply_alarms(plan)
        self._adopt_the_rest(plan)
        done = ApplyReport(plan.to_dict(), tuple(reports), alarms, left)
        failed = [subject for one in reports if not one.done for subject in one.subjects]
        say = _log.info if done.complete else _log.warning
        say(
            "lab file applied", file=str(plan.target.file), units=len(reports), failed=failed, refused=len(plan.refused)
        )
        lab.note_in_runs("applied", {"failed": failed, "definition": str(plan.target.file)})
        return done

    async def _carry_out_unit(self, plan: LabPlan, unit: Unit, unopened: set[str]) -> UnitReport:
        named = unit.named("instrument", "add", "change", "restart")
        missing = sorted(unopened & {str(one.port) for one in plan.target.instruments if one.id in named})
        if missing:
            subjects = tuple(f"{step.subject} {step.name}" for step in unit.steps)
            return UnitReport(False, subjects, f"its port {missing[0]} could not be opened")
        report = await Change(self._lab.manager, plan, unit).carry_out()
        if report.done:
            self._adopt(plan, unit)
            for name in unit.named("instrument", "add", "change", "restart", "remove"):
                await self._lab.migration.forget(name)
            for name in unit.named("instrument", "remove"):
                self._lab.control.forget(name)
        else:
            unopened.update(unit.named("port", "add"))
        return report

    async def _close_unused(self, plan: LabPlan, reports: list[UnitReport]) -> list[UnitReport]:
        """Close a port that was opened for instruments of which none came up; the reports, and what stays open."""
        open_still: dict[str, str] = {}
        stand = {one.port for one in self._lab.definition.instruments}
        meant = {one.port for one in plan.target.instruments}
        for port in [port for unit in plan.units for port in unit.named("port", "add")]:
            if port in meant and port not in stand and port in self._lab.manager.broker.names():
                try:
                    await self._lab.manager.remove_port(port)
                except Exception as error:  # noqa: BLE001 - the rest is done, and whoever asked is told of all of it
                    open_still[port] = f"nobody needs it, and it could not be closed: {error}"
                    _log.error("a port could not be closed", port=port, error=str(error))
                    continue
                known = self._lab.definition
                self._lab.adopt(replace(known, ports=tuple(one for one in known.ports if one.name != port)))
        told = [{name: why for name, why in open_still.items() if f"port {name}" in one.subjects} for one in reports]
        return [msgspec.structs.replace(one, stands={**one.stands, **t}) for one, t in zip(reports, told, strict=True)]

    # ---- what stands -------------------------------------------------------------------------------------------------

    def _adopt(self, plan: LabPlan, unit: Unit) -> None:
        taken = {(step.subject, step.name) for step in unit.steps}
        instruments, ports = ({name for kind, name in taken if kind == wanted} for wanted in ("instrument", "port"))
        known, target = self._lab.definition, plan.target
        self._lab.adopt(
            replace(
                known,
                instruments=_merged(known.instruments, target.instruments, instruments),
                ports=_merged(known.ports, target.ports, ports),
            )
        )

    def _apply_alarms(self, plan: LabPlan) -> tuple[tuple[str, ...], dict[str, str]]:
        """Take over the alarms whose instruments are what the plan wants; the others stay as they are."""
        known, target = self._lab.definition, {one.name: one for one in plan.target.alarms}
        stand = {one.id: one for one in known.instruments}
        meant = {one.id: one for one in plan.target.instruments}
        taken: list[str] = []
        left: dict[str, str] = {}
        for step in plan.alarms:
            alarm = target.get(step.name)
            if alarm is not None and stand.get(alarm.instrument) != meant.get(alarm.instrument):
                left[step.name] = f"{alarm.instrument} is not what the file says"
            else:
                taken.append(step.name)
        alarms = _merged(known.alarms, plan.target.alarms, set(taken))
        mail = plan.target.mail
        if alarms != known.alarms or mail != known.mail:
            self._lab.alarms.redefine(alarms, mail)
            self._lab.adopt(replace(known, alarms=alarms, mail=mail))
        return tuple(taken), left

    def _adopt_the_rest(self, plan: LabPlan) -> None:
        target = plan.target
        self._lab.adopt(
            replace(
                self._lab.definition,
                file=target.file,
                recording_dir=target.recording_dir,
                record_wire=target.record_wire,
                finalise=target.finalise,
                keep_journal=target.keep_journal,
                shutdown_s=target.shutdown_s,
            )
        )


def _merged(stand: tuple[_N, ...], meant: tuple[_N, ...], taken: set[str]) -> tuple[_N, ...]:
    """What stands, with those that were `taken` over as they are meant, in the order that is meant."""
    old, new = {name_of(one): one for one in stand}, {name_of(one): one for one in meant}
    merged = {name: one for name, one in old.items() if name not in taken or name in new}
    merged |= {name: one for name, one in new.items() if name in taken}
    order = [*new, *(name for name in merged if name not in new)]
    return tuple(merged[name] for name in order if name in merged)


def _instruments_of(plan: LabPlan) -> list[str]:
    """Those that it changes, adds, removes or begins anew."""
    return [step.name for unit in plan.units for step in unit.steps if step.subject == "instrument"]


def _names(plan: LabPlan) -> dict[str, Any]:
    """The plan without its values, which may be nobody else's business."""
    return {
        f"{step.subject} {step.name}": {"what": step.what, "keys": [one.key for one in step.keys]}
        for unit in plan.units
        for step in unit.steps
    }


def _look_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # whoever asked may be gone
