"""What has to be done so that a running lab becomes what a lab file says: a pure comparison of two definitions.

Rules for whoever edits this:

* What is equal is in no step: nobody touches it.
* A *unit* is what stands or falls together: one instrument; or a port that is opened anew, with all that is on it; or
  ports of which one takes the line that another gives up.
* What cannot be taken over while the lab runs stays as it is, in the lab and in the `target`, and is said; so does what
  it needs. The target is a whole, valid lab at any rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec

from duodaq.config._checks import address_of, check_lab
from duodaq.config._left_out import shown_value
from duodaq.config._notes import action_of
from duodaq.config._spelling import Spelled, alarm_keys, instrument_keys, lab_keys, laid_down_keys, port_keys
from duodaq.config._where import worker_of
from duodaq.errors import ConfigError
from duodaq.model import AlarmDefinition, Cause, InstrumentDefinition, LabDefinition, PortDefinition

Subject = Literal["port", "instrument", "alarm"]
What = Literal["add", "remove", "change", "restart"]
_N = TypeVar("_N", InstrumentDefinition, PortDefinition, AlarmDefinition)

RESTART_THE_LAB = "end the lab and run it again"


class KeyChange(msgspec.Struct, frozen=True):
    """One key of a lab file: its value before and after, as TOML; None where it is not set."""

    key: str
    before: str | None
    after: str | None


class Step(msgspec.Struct, frozen=True):
    """What becomes of one port, instrument or alarm. `why` says so of a restart, whose own stanza is as it was."""

    subject: Subject
    name: str
    what: What
    keys: tuple[KeyChange, ...] = ()
    why: str = ""


class Unit(msgspec.Struct, frozen=True):
    """Steps that stand or fall together."""

    steps: tuple[Step, ...]

    def named(self, subject: Subject, *whats: What) -> list[str]:
        """The names of those that this is done to."""
        return [one.name for one in self.steps if one.subject == subject and one.what in whats]


class Refusal(msgspec.Struct, frozen=True):
    """A key that stays as it is in the running lab: why, and what a person can do."""

    key: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LabPlan:
    """From a running lab to the `target`: units in their order, then what is none's, and what is left as it is."""

    before: LabDefinition
    target: LabDefinition
    units: tuple[Unit, ...]
    alarms: tuple[Step, ...]
    lab: tuple[KeyChange, ...]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.units or self.alarms or self.lab)

    @property
    def digest(self) -> str:
        """Another plan has another one."""
        return hashlib.blake2b(msgspec.json.encode(self._facts(), order="deterministic"), digest_size=8).hexdigest()

    def _facts(self) -> dict[str, Any]:
        return {
            "lab": self.target.name,
            "file": str(self.target.file),
            "units": [msgspec.to_builtins(unit.steps) for unit in self.units],
            "alarms": msgspec.to_builtins(self.alarms),
            "keys": msgspec.to_builtins(self.lab),
            "refused": msgspec.to_builtins(self.refused),
            "notes": list(self.notes),
        }

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, without the secrets in them."""
        facts = msgspec.json.decode(msgspec.json.encode(self._facts()))
        changes = [change for unit in (*facts["units"], facts["alarms"]) for step in unit for change in step["keys"]]
        for change in (*changes, *facts["keys"]):
            for when in ("before", "after"):
                if change[when] is not None:
                    change[when] = shown_value(change["key"], change[when])
        return {**facts, "empty": self.empty, "digest": self.digest}


def plan_change(before: LabDefinition, wanted: LabDefinition) -> LabPlan:
    """What makes the running lab `before` the one that is `wanted`.

    Raises:
        ConfigError: It is another lab, or in another folder; or what is left as it is contradicts the rest.
    """
    _is_this_lab(before, wanted)
    refused = [*_refused_instruments(before, wanted), *_laid_down(before, wanted)]
    target = _with_what_stays(before, wanted, refused)
    units = tuple(_units(before, target))
    notes = [*_notes(before, target, units)]
    return LabPlan(
        before=before,
        target=target,
        units=units,
        alarms=tuple(_steps("alarm", before.alarms, target.alarms, alarm_keys)),
        lab=tuple(_differences(lab_keys(before), lab_keys(target))),
        refused=tuple(refused),
        notes=tuple(notes),
    )


# ---- what is not possible --------------------------------------------------------------------------------------------


def _is_this_lab(before: LabDefinition, wanted: LabDefinition) -> None:
    if before.name != wanted.name:
        what = f'it describes the lab "{wanted.name}", and the one that runs is "{before.name}"'
        raise ConfigError(what, file=wanted.file, key="lab.name", remedy=f'Write name = "{before.name}" in [lab]')
    if before.directory.resolve() != wanted.directory.resolve():
        what = f"the running lab is in {before.directory}, and paths in a lab file are relative to its folder"
        raise ConfigError(what, file=wanted.file, remedy=f"Put the file there, or {RESTART_THE_LAB}")


def _refused_instruments(before: LabDefinition, wanted: LabDefinition) -> Iterator[Refusal]:
    there = _by_name(before.instruments)
    for new in wanted.instruments:
        old, key = there.get(new.id), f"instruments.{new.id}"
        if old is None:
            continue
        if old.runtime != new.runtime:
            why = f"it lives in {old.runtime}; to move it to {new.runtime} is a migration, which this is not"
            yield Refusal(
                f"{key}.runtime", why, f"All of {new.id} stays as it is: `duodaq migrate`, or {RESTART_THE_LAB}"
            )
        elif (home := _home(old, before)) != (now := _home(new, before)):
            why = f"its worker ({home}) counts its measurements, and it would have to move to another ({now})"
            yield Refusal(f"{key}.worker", why, f"All of {new.id} stays as it is; {RESTART_THE_LAB}")


def _home(one: InstrumentDefinition, lab: LabDefinition) -> str:
    return worker_of(one, lab.v2 if one.runtime == "v2" else lab.v4)


def _laid_down(before: LabDefinition, wanted: LabDefinition) -> Iterator[Refusal]:
    old, new = laid_down_keys(before), laid_down_keys(wanted)
    for key, value in new.items():
        if old[key] != value:
            yield Refusal(key, "it is laid down when the lab starts", RESTART_THE_LAB.capitalize())


def _with_what_stays(before: LabDefinition, wanted: LabDefinition, refused: list[Refusal]) -> LabDefinition:
    """The lab that is wanted, but for all that is refused; more is refused where that needs it."""
    held = {one.key.split(".")[1] for one in refused if one.key.startswith("instruments.")}
    old, old_ports, ports = _by_name(before.instruments), _by_name(before.ports), _by_name(wanted.ports)
    for name in sorted(held):
        port = old[name].port
        if port is not None and ports.get(port) != old_ports[port]:
            ports[port] = old_ports[port]
            refused.append(
                Refusal(f"ports.{port}", f"{name}, which stays as it is, is on it", RESTART_THE_LAB.capitalize())
            )
    target = replace(
        wanted,
        ports=tuple(ports.values()),
        instruments=tuple(old[one.id] if one.id in held else one for one in wanted.instruments),
        v2=before.v2,
        v4=before.v4,
        web=before.web,
        observers=before.observers,
        directory=before.directory,
    )
    problems = [f"{'.'.join(map(str, path))} {what}" for path, what, _ in check_lab(target)] if held else []
    if problems:
        raise ConfigError(f"{' and '.join(sorted(held))} would stay as it is, and then {'; '.join(problems)}")
    return target


# ---- what is to be done ----------------------------------------------------------------------------------------------


def _by_name(definitions: Iterable[_N]) -> dict[str, _N]:
    return {name_of(one): one for one in definitions}


def name_of(one: InstrumentDefinition | PortDefinition | AlarmDefinition) -> str:
    """What it is called in its lab file, and by what it is found again there."""
    return one.id if isinstance(one, InstrumentDefinition) else one.name


def _steps(subject: Subject, before: Iterable[_N], after: Iterable[_N], spell: Any) -> Iterator[Step]:
    old, new = _by_name(before), _by_name(after)
    for name, one in old.items():
        if name not in new:
            yield Step(subject, name, "remove", tuple(_differences(spell(one), {})))
    for name, one in new.items():
        if name not in old:
            yield Step(subject, name, "add", tuple(_differences({}, spell(one))))
        elif old[name] != one:
            yield Step(subject, name, "change", tuple(_differences(spell(old[name]), spell(one))))


def _differences(old: Spelled, new: Spelled) -> Iterator[KeyChange]:
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield KeyChange(key, old.get(key), new.get(key))


def _units(before: LabDefinition, target: LabDefinition) -> Iterator[Unit]:
    ports = list(_steps("port", before.ports, target.ports, port_keys))
    instruments = list(_steps("instrument", before.instruments, target.instruments, instrument_keys))
    instruments += _restarts(before, target, ports, instruments)
    groups = _Groups([*ports, *instruments])
    for step, other in _tied(before, target, ports, instruments):
        groups.join(step, other)
    depths = _depths(target, instruments)
    yield from sorted(groups.units(), key=lambda unit: _rank(unit, depths))


def _restarts(
    before: LabDefinition, target: LabDefinition, ports: list[Step], instruments: list[Step]
) -> Iterator[Step]:
    """Instruments that are as they were, on a port that is not, or with a handle of one that comes or goes."""
    touched = {one.name for one in instruments}
    opened_anew = {one.name for one in ports if one.what == "change"}
    new, gone = ({one.name for one in instruments if one.what == what} for what in ("add", "remove"))
    for one in target.instruments:
        if one.id in touched:
            continue
        asked = _asks(one)
        if one.port in opened_anew:
            yield Step("instrument", one.id, "restart", why=f"its port {one.port} is opened anew")
        elif asked & new:
            yield Step("instrument", one.id, "restart", why=f"it asks {', '.join(sorted(asked & new))}, which is new")
        elif asked & gone:
            yield Step("instrument", one.id, "restart", why=f"it asked {', '.join(sorted(asked & gone))}, which goes")


def _asks(one: InstrumentDefinition) -> frozenset[str]:
    return frozenset(v[1:] for v in one.args.values() if isinstance(v, str) and v.startswith("@"))


def _tied(
    before: LabDefinition, target: LabDefinition, ports: list[Step], instruments: list[Step]
) -> Iterator[tuple[Step, Step]]:
    """Pairs of steps of which neither can be done, or undone, without the other."""
    old, new = _by_name(before.ports), _by_name(target.ports)
    lines = {p.name: {address_of(one[p.name]) for one in (old, new) if p.name in one} for p in ports}
    given_up: dict[str, Step] = {}
    for port in ports:
        for line in lines[port.name]:
            if (other := given_up.setdefault(line, port)) is not port:
                yield port, other
    whole = {p.name for p in ports if p.what == "change"}
    whole |= {p.name for p in ports for line in lines[p.name] if sum(line in one for one in lines.values()) > 1}
    users, then = _by_name(before.instruments), _by_name(target.instruments)
    for step in instruments:
        both = [one[step.name] for one in (users, then) if step.name in one]
        own = {value for one in both for value in one.args.values() if isinstance(value, str)}
        for port in ports:
            on_it = any(one.port == port.name for one in both)
            if (on_it and port.name in whole) or own & lines[port.name]:
                yield step, port


class _Groups:
    """Steps in groups, which grow together."""

    def __init__(self, steps: list[Step]) -> None:
        self._group = {id(step): [step] for step in steps}

    def join(self, one: Step, other: Step) -> None:
        mine, theirs = self._group[id(one)], self._group[id(other)]
        if mine is not theirs:
            mine += theirs
            for step in theirs:
                self._group[id(step)] = mine

    def units(self) -> list[Unit]:
        return [Unit(tuple(steps)) for steps in {id(group): group for group in self._group.values()}.values()]


def _depths(target: LabDefinition, instruments: list[Step]) -> dict[str, int]:
    """How many that are brought up an instrument has to wait for: it gets a handle only of those that are there."""
    brought_up = {one.name for one in instruments if one.what == "add"}
    asks = {one.id: _asks(one) & brought_up for one in target.instruments}
    depths = dict.fromkeys(asks, 0)
    for _ in brought_up:
        for name, others in asks.items():
            depths[name] = max((depths[other] + 1 for other in others), default=0)
    return depths


def _rank(unit: Unit, depths: dict[str, int]) -> tuple[int, int]:
    """Ports that are new first, then who goes, then who comes or changes; at last ports of which nobody is left."""
    instruments = [one for one in unit.steps if one.subject == "instrument"]
    if not instruments:
        return (0 if any(one.what != "remove" for one in unit.steps) else 3), 0
    if all(one.what == "remove" for one in instruments):
        return 1, 0
    return 2, max(depths.get(one.name, 0) for one in instruments)


# ---- what is good to know --------------------------------------------------------------------------------------------


def takes_safe_state(unit: Unit, instrument: str) -> bool:
    """Whether an instrument takes its safe state of a shutdown before it ends: it goes, or its port does."""
    return instrument in unit.named("instrument", "remove") or bool(unit.named("port", "change", "remove"))


def _before_it_ends(instrument: InstrumentDefinition) -> str:
    """What making it safe sends or calls, in words; empty if that is nothing."""
    action = instrument.safe.get(Cause.SHUTDOWN)
    if action is None or action.kind == "hold":
        return ""
    sent = f"its stop bytes {instrument.stop!r}" if instrument.stop is not None else "its stop"
    return f"first takes its safe state: {sent if action.kind == 'stop' else action_of(instrument, Cause.SHUTDOWN)}"


def _notes(before: LabDefinition, target: LabDefinition, units: tuple[Unit, ...]) -> Iterator[str]:
    old = _by_name(before.instruments)
    for unit in units:
        for step in unit.steps:
            if step.subject != "instrument" or step.what == "add":
                continue
            first = _before_it_ends(old[step.name]) if takes_safe_state(unit, step.name) else ""
            if step.what == "remove":
                told = first or "nothing is sent to it"
                yield f"{step.name} goes: no stop reaches it afterwards; {told} (safe.shutdown)"
            elif first:
                yield f"{step.name} {first} (safe.shutdown), since its port is opened anew"
        if len(unit.steps) > 1:
            names = ", ".join(f"{one.subject} {one.name}" for one in unit.steps)
            yield f"these stand or fall together: {names}"
