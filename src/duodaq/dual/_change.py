"""Carrying out a unit of a plan on a running lab: all of it, or none.

The order is down, then up: instruments are stopped, ports closed, ports opened, instruments started. Each step notes
how it is undone before the next begins; where one fails, what was done is undone in reverse order. What was there
before is brought back as after a start of the lab: it is there also if it does not start, and tried again by itself.

What an instrument has in hand may end first, with the stanza that it began with. What does not end in time is cut off;
a device may go on with it all the same, so that its axes are stopped as soon as there is a driver again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from duodaq.config import LabPlan, Unit, takes_safe_state
from duodaq.dual._safety import in_words
from duodaq.errors import DuodaqError
from duodaq.model import InstrumentState, LabDefinition, Outcome, StartAcquisition
from duodaq.telemetry import get_logger

if TYPE_CHECKING:
    from duodaq.dual._manager import DualRuntimeManager

_log = get_logger("duodaq.dual")
Undo = Callable[[], Awaitable[Any]]


class UnitReport(msgspec.Struct, frozen=True):
    """What became of a unit.

    Attributes:
        done: Whether it was carried out; if not, all of it is as it was, but for what `stands` says.
        subjects: ``instrument dmm``, ``port dmm`` …: what it was about.
        why: What failed.
        stands: Of what is not as it should be, how it stands, by name: also where the unit was carried out.
    """

    done: bool
    subjects: tuple[str, ...]
    why: str = ""
    stands: dict[str, str] = {}


class Change:
    """One unit of a plan, on a running lab."""

    def __init__(self, manager: DualRuntimeManager, plan: LabPlan, unit: Unit) -> None:
        self._manager = manager
        self._unit = unit
        self._before, self._after = _known(plan.before), _known(plan.target)
        self._undo: list[tuple[str, Undo]] = []
        self._stands: dict[str, str] = {}
        self._streamed: set[str] = set()
        self._cut: set[str] = set()

    async def carry_out(self) -> UnitReport:
        """Carry it out, or undo it; how it ended. Raises nothing for what an instrument or a port does.

        Cancellation: at once, without undoing: that is for the end of the lab.
        """
        subjects = tuple(f"{step.subject} {step.name}" for step in self._unit.steps)
        try:
            await self._down()
            await self._up()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, what was there comes back
            why = in_words(error)
            _log.error("not changed", what=subjects, why=why)
            await self._back()
            return UnitReport(False, subjects, why, self._stands)
        return UnitReport(True, subjects, "", self._stands)

    async def _down(self) -> None:
        unit, manager = self._unit, self._manager
        for name in reversed(unit.named("instrument", "remove", "change", "restart")):
            definition = self._before[0][name]
            safe = takes_safe_state(unit, name)
            self._note_stream(name)
            self._undo.append((name, lambda one=definition: self._bring_back(one.id)))
            report = await manager.remove(name, safe=safe)
            if report.outcome is not Outcome.CLEAN:
                self._stands[name] = f"its driver did not end: {report.why}"
                self._cut.add(name)
        for name in unit.named("port", "remove", "change"):
            port = self._before[1][name]
            self._undo.append((name, lambda one=port: manager.add_port(one, keep=True)))
            await manager.remove_port(name)

    async def _up(self) -> None:
        unit, manager = self._unit, self._manager
        for name in unit.named("port", "add", "change"):
            await manager.add_port(self._after[1][name])
            self._undo.append((name, lambda one=name: manager.remove_port(one)))
        order = [one for one in self._after[0] if one in unit.named("instrument", "add", "change", "restart")]
        new = unit.named("instrument", "add")
        for name in sorted(order, key=lambda one: one not in new):
            await manager.add(self._after[0][name])
            self._undo.append((name, lambda one=name: manager.remove(one)))
            await self._halt(name)
            await self._stream_again(name)

    async def _bring_back(self, name: str) -> None:
        if self._manager.has(name):
            return  # it could not be removed, so it is there
        await self._manager.add(self._before[0][name], keep=True)
        await self._halt(name)
        await self._stream_again(name)

    async def _back(self) -> None:
        for name, undo in reversed(self._undo):
            try:
                await undo()
            except Exception as error:  # noqa: BLE001 - the others are brought back all the same
                self._stands[name] = in_words(error)
                _log.error("not as it was", what=name, error=self._stands[name])

    # ---- what was cut off --------------------------------------------------------------------------------------------

    async def _halt(self, name: str) -> None:
        """Stop the axes of one whose work was cut off: a move may go on in the device, and nobody waits for it."""
        if name not in self._cut or not self._before[0][name].axes:
            return
        self._cut.discard(name)
        failed: list[str] = []
        for axis in self._before[0][name].axes:
            try:
                await self._manager.stop(name, axis.name)
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the other axes are stopped
                failed.append(f"axis {axis.name} could not be stopped: {in_words(error)}")
        self._stands[name] = "; ".join((self._stands[name], *(failed or ["its axes were stopped"])))
        _log.warning("axes were stopped, since a change cut off what was in hand", instrument=name, failed=failed)

    # ---- streams -----------------------------------------------------------------------------------------------------

    def _note_stream(self, name: str) -> None:
        """One that streams goes on to, if that neither moves nor emits."""
        state = next((one.state for one in self._manager.instruments() if one.id == name), None)
        if state is InstrumentState.ACQUIRING and not self._manager.moves(name, StartAcquisition()):
            self._streamed.add(name)

    async def _stream_again(self, name: str) -> None:
        state = next((one.state for one in self._manager.instruments() if one.id == name), None)
        if name not in self._streamed or state is InstrumentState.ACQUIRING:
            return
        try:
            await self._manager.command(name, StartAcquisition())
        except DuodaqError as error:
            self._stands[name] = f"it streamed, and does not any more: {error}"


def _known(lab: LabDefinition) -> tuple[dict[str, Any], dict[str, Any]]:
    return {one.id: one for one in lab.instruments}, {one.name: one for one in lab.ports}
