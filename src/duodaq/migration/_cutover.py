"""One instrument from one runtime to the other, while everything else goes on.

The rules that whoever edits this must keep:

* At every moment exactly one definition is registered for the instrument, and exactly one name may write for it.
* The old owner is let end in good order and within its limit; the fence is raised behind it, and before the new one
  begins. So an old owner that did not end, or whose process comes back, finds the wire closed to it.
* What fails behind the fence goes back: the old owner again, in a newer epoch. If that one does not start either it
  stays registered, says why, and starts when it is told to recover, or restarted.
* Commands wait at the gate, with their deadlines, from the first step to the last; whatever happens the gate opens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from duodaq.clock import monotonic_s, utc_ns
from duodaq.errors import CutoverError, DuodaqError
from duodaq.model import (
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    ParameterEntry,
    RuntimeName,
    holder_of,
)
from duodaq.telemetry import get_logger, told

_log = get_logger("migration")
Handed = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From the settings that the old owner knew, by its names, to those of the new one."""


def nothing_handed(_: Mapping[str, Any]) -> dict[str, Any]:
    """The new owner finds the device as the old one left it, and sets what its own stanza says."""
    return {}


class Hands(Protocol):
    """What a cutover does to a lab; `dual` has them."""

    def hold(self, instrument: str) -> None:
        """Let commands to the instrument wait from now on. Stops pass."""
        ...

    def resume(self, instrument: str) -> None:
        """Let them go on, to whoever has the instrument now."""
        ...

    async def settled(self, instrument: str, limit_s: float) -> bool:
        """Whether what was in hand has ended, within `limit_s`."""
        ...

    async def same_device(self, definition: InstrumentDefinition) -> str:
        """Why what answers at the port is not what answered before; empty if it is, or if nobody can tell."""
        ...

    async def has_no_place(self, definition: InstrumentDefinition, limit_s: float) -> str:
        """Why it could not be started where it is to go, also after `limit_s`; empty if it can."""
        ...

    async def take_down(self, definition: InstrumentDefinition, limit_s: float) -> ComponentReport:
        """End it in its runtime, where it stays registered. Never raises: what did not end is reported."""
        ...

    async def fence(self, definition: InstrumentDefinition) -> None:
        """Let only this owner write from now on."""
        ...

    async def drained(self, definition: InstrumentDefinition, limit_s: float) -> dict[str, int]:
        """Wait for what it has measured to be published, or known to be lost; the numbers its streams go on from.

        None of them has been used, also where what bears the one before was lost, or is late.
        """
        ...

    async def bring_up(self, definition: InstrumentDefinition, limit_s: float) -> None:
        """Register and start it, in place of whoever was registered.

        Raises:
            DuodaqError: It did not start. Whoever was registered is registered again.
        """
        ...

    def park(self, definition: InstrumentDefinition) -> None:
        """Register it without starting it, in place of whoever was registered."""
        ...

    def state(self, instrument: str) -> InstrumentState: ...

    def values(self, instrument: str) -> tuple[ParameterEntry, ...]:
        """What the parameter table knows of it."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each step of a cutover may take, in seconds; beyond `settle_s` it is refused, beyond others undone."""

    settle_s: float = 10.0
    close_s: float = 1.0
    drain_s: float = 0.1
    open_s: float = 5.0


@dataclass
class Passage:
    """What a cutover did, step by step.

    Attributes:
        steps: Each with the seconds since the beginning at which it had been done.
        owner: The runtime that has the instrument.
        handed: The settings that were handed over, by the new owner's names.
        gap_s: For how long nobody owned the wire: from the old owner's end to the new one's start.
    """

    instrument: str
    old: RuntimeName
    new: RuntimeName
    began_ns: int = field(default_factory=utc_ns)
    owner: RuntimeName = "v2"
    epoch: int = 0
    steps: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    handed: dict[str, Any] = field(default_factory=dict[str, Any])
    old_ended: str = "clean"
    gap_s: float = 0.0
    took_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


async def cut_over(
    hands: Hands,
    old: InstrumentDefinition,
    new: InstrumentDefinition,
    handed: Handed = nothing_handed,
    limits: Limits = Limits(),
) -> tuple[InstrumentDefinition, Passage]:
    """Move an instrument from where `old` has it to where `new` says; the definition it now has, and what was done.

    Raises:
        CutoverError: It was refused, or undone: `step` says where, `owner` which runtime has the instrument.

    Cancellation: The old owner is registered, and not running; commands go on, and are told so.
    """
    return await _Cutover(hands, old, new, handed, limits).run()


class _Cutover:
    def __init__(
        self, hands: Hands, old: InstrumentDefinition, new: InstrumentDefinition, handed: Handed, limits: Limits
    ) -> None:
        self._hands = hands
        self._old = old
        self._new = new
        self._handed = handed
        self._limits = limits
        self._began_s = monotonic_s()
        self._passage = Passage(old.id, old.runtime, new.runtime, owner=old.runtime, epoch=old.epoch)

    async def run(self) -> tuple[InstrumentDefinition, Passage]:
        hands, old = self._hands, self._old
        if strange := await hands.same_device(old):
            raise self._refused("identity", strange)
        if away := await hands.has_no_place(self._new, self._limits.open_s):  # while the old owner goes on
            raise self._refused("place", away)
        hands.hold(old.id)
        self._step("held")
        try:
            if not await hands.settled(old.id, self._limits.settle_s):
                raise self._refused("settle", f"a command was still in hand after {self._limits.settle_s:g} s")
            self._step("settled")
            acquiring = _acquires(hands.state(old.id), old)
            known = {e.name: e.value for e in hands.values(old.id) if e.owner == old.runtime}
            self._passage.handed = self._handed(known)
            return await self._move(acquiring), self._passage
        finally:
            hands.resume(old.id)
            self._passage.took_s = monotonic_s() - self._began_s

    async def _move(self, acquiring: bool) -> InstrumentDefinition:
        hands, old, limits = self._hands, self._old, self._limits
        ended = await hands.take_down(old, limits.close_s)
        began_s = monotonic_s()
        self._passage.old_ended = str(ended.outcome)
        if ended.outcome is not Outcome.CLEAN:
            _log.warning("the old owner did not end in order", instrument=old.id, why=ended.why, runtime=old.runtime)
        self._step("old owner ended")
        step = "fence"
        numbers: dict[str, int] = {}
        try:
            numbers = await hands.drained(old, limits.drain_s)
            self._step("streams drained")
            settings = {**self._new.settings, **self._passage.handed}
            new = _going_on(replace(self._new, settings=settings), old.epoch + 1, numbers, acquiring)
            await hands.fence(new)
            self._step("fenced")
            step = "start"
            await hands.bring_up(new, limits.open_s)
            self._step("new owner started")
            step = "check"
            self._check(new)
        except BaseException as error:
            if not isinstance(error, Exception):
                hands.park(_going_on(old, old.epoch + 2, numbers, acquiring))
                raise
            left = await self._back(step, error, numbers, acquiring)
            raise CutoverError(
                f"it was undone at «{step}»: {_words(error)}",
                owner=old.runtime,
                step=step,
                instrument=old.id,
                left=left,
            ) from error
        self._passage.gap_s = monotonic_s() - began_s
        self._passage.owner, self._passage.epoch = new.runtime, new.epoch
        _log.warning("instrument moved", instrument=old.id, owner=holder_of(new), gap_ms=self._passage.gap_s * 1e3)
        return new

    def _check(self, new: InstrumentDefinition) -> None:
        state = self._hands.state(new.id)
        if state not in (InstrumentState.READY, InstrumentState.ACQUIRING):
            raise DuodaqError(f"the new owner is {state}")
        told_by_new = {e.name: e.value for e in self._hands.values(new.id) if e.owner == new.runtime}
        for name, wanted in self._passage.handed.items():
            if name in told_by_new and not same_value(wanted, told_by_new[name]):
                raise DuodaqError(f"{name} was handed over as {wanted!r} and reads {told_by_new[name]!r}")
        self._step("checked")

    async def _back(self, step: str, error: BaseException, numbers: dict[str, int], acquiring: bool) -> str:
        """The old owner again; what is left, as a sentence."""
        hands, limits = self._hands, self._limits
        _log.error("cutover undone", instrument=self._old.id, step=step, error=_words(error))
        if step == "check":
            await hands.take_down(self._new, limits.close_s)
        if step in ("start", "check"):  # it may have measured before it failed: what bears a number keeps it
            used = await hands.drained(self._new, limits.drain_s)
            numbers |= {channel: max(number, numbers.get(channel, 0)) for channel, number in used.items()}
        back = _going_on(self._old, self._old.epoch + 2, numbers, acquiring)
        self._passage.epoch = back.epoch
        await hands.fence(back)
        try:
            await hands.bring_up(back, limits.open_s)
        except Exception as second:  # noqa: BLE001 - whatever its driver raises, somebody has it
            hands.park(back)
            self._step("old owner parked")
            return f"{back.runtime} has it, and is not running: {_words(second)}; recover() or restart() starts it"
        self._step("old owner again")
        return f"{back.runtime} has it"

    def _refused(self, step: str, why: str) -> CutoverError:
        owner = self._old.runtime
        return CutoverError(
            f"refused at «{step}»: {why}", owner=owner, step=step, instrument=self._old.id, left=f"{owner} has it"
        )

    def _step(self, what: str) -> None:
        self._passage.steps.append((what, round(monotonic_s() - self._began_s, 6)))


def _going_on(
    definition: InstrumentDefinition, epoch: int, numbers: dict[str, int], acquiring: bool
) -> InstrumentDefinition:
    options = {**definition.options, "acquire": acquiring}
    return replace(definition, epoch=epoch, numbers=numbers, options=options, autostart=True)


def _acquires(state: InstrumentState, definition: InstrumentDefinition) -> bool:
    if state in (InstrumentState.READY, InstrumentState.ACQUIRING):
        return state is InstrumentState.ACQUIRING
    return bool(definition.options.get("acquire", definition.runtime == "v2" and bool(definition.polls)))


def same_value(one: Any, other: Any, relative: float = 1e-5) -> bool:
    """Whether two settings are the same; numbers within `relative`, for devices round."""
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=relative, abs_tol=1e-12)
    return bool(one == other)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, DuodaqError) else told(error)
