"""Named presets of a lab's settings: saved as files beside the lab file, compared with what is set now, and loaded.

Rules for whoever edits this:

* A preset is refused whole, before anything is sent, if any of it cannot be set: a setting that is not there, a value
  beyond its limits, an instrument that somebody else controls, a stop that is latched.
* What is not known to be harmless is not set by a preset: it is shown, and left to a person, unless
  the lab file says that it may.
* What makes safe comes first; then, instrument by instrument, what the lab file declares, in its order.
* If the device refuses one all the same, nothing more is set, and the error says what was.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import msgspec

from duodaq.app._control import ControlTable
from duodaq.app._preset_file import Preset, plain_value, preset_from, write_preset
from duodaq.app._preset_rules import Row, is_later, kind_of, left_to_a_person, same, settings_of
from duodaq.app._settings_now import read_setting
from duodaq.config import choose
from duodaq.errors import (
    ConfigError,
    DuodaqError,
    LifecycleError,
    OutOfRangeError,
    PartlySetError,
    UnsafeStateError,
)
from duodaq.model import Command, InstrumentDefinition, LabDefinition, SetParameter, check_limits
from duodaq.telemetry import get_logger

FOLDER = "presets"
READ_S = 10.0
_NAME = re.compile(r"[^\W_][\w. -]{0,98}")
_log = get_logger("presets")


class PresetLab(Protocol):
    """What presets need of a lab."""

    definition: LabDefinition
    control: ControlTable

    @property
    def manager(self) -> Any: ...

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any: ...

    def note_in_runs(self, name: str, doc: Mapping[str, Any]) -> None: ...


class Presets:
    """The presets of one lab: files in the folder ``presets`` beside its lab file."""

    def __init__(self, lab: PresetLab) -> None:
        self._lab = lab
        self._in_hand = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._lab.definition.directory / FOLDER

    # ---- what there is -------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Their names."""
        return sorted(path.stem for path in self.folder.glob("*.toml")) if self.folder.is_dir() else []

    def facts(self) -> list[dict[str, Any]]:
        """Each with where it comes from and what it is about; one that cannot be read says why, under ``error``."""
        found: list[dict[str, Any]] = []
        for name in self.names():
            try:
                preset = self.read(name)
            except DuodaqError as error:
                found.append({"name": name, "error": str(error)})
            else:
                count = sum(len(settings) for settings in preset.settings.values())
                about = {"instruments": [*preset.settings], "settings": count}
                found.append({**preset.facts, "name": name, **about})
        return found

    def read(self, name: str) -> Preset:
        """One preset.

        Raises:
            ConfigError: There is none of this name, or its file is wrong: names file and key.
        """
        path = self._path(name)
        if not path.is_file():
            raise ConfigError(f"no preset {name!r}", remedy=choose(name, self.names(), "There are"))
        return preset_from(path, name)

    # ---- saving --------------------------------------------------------------------------------------------------

    async def save(
        self, name: str, instruments: Sequence[str] | None = None, *, note: str = "", replace: bool = False
    ) -> Preset:
        """Read every setting from its device, and keep it under a name.

        Args:
            name: Letters, digits, spaces, ``.``, ``-`` and ``_``.
            instruments: Which; all if None.
            note: A word about it.
            replace: Whether to put it in the place of one of that name.

        Raises:
            LifecycleError: There is one of that name, or no such instrument. Nothing was written.
            ConfigError: It cannot be a name of a file. Nothing was written.
            StorageError: It cannot be written.
        """
        path = self._path(name)
        async with self._in_hand:  # of two that save one name at once the second finds the first one's
            if path.exists() and not replace:
                what = f"there is a preset {name!r} already"
                raise LifecycleError(what, left="replace=True, or --replace, replaces it")
            preset = await self._as_it_is(name, instruments, note)
            write_preset(preset, path)
        told = {"by": preset.facts["by"], "instruments": [*preset.settings], "not_read": preset.facts["not_read"]}
        _log.info("a preset was saved", preset=name, **told)
        return preset

    async def _as_it_is(self, name: str, instruments: Sequence[str] | None, note: str) -> Preset:
        wanted = [self._lab.manager.definition(one) for one in instruments] if instruments else self._definitions()
        settings: dict[str, dict[str, Any]] = {}
        units: dict[str, dict[str, str]] = {}
        missing: list[str] = []
        for definition in wanted:
            for setting in settings_of(definition):
                value = await self._present(definition.id, setting["name"], missing)
                if value is not None:
                    settings.setdefault(definition.id, {})[setting["name"]] = value
                    units.setdefault(definition.id, {})[setting["name"]] = setting["unit"]
        facts = {
            "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
            "by": self._lab.control.client().called(),
            "lab": self._lab.definition.name,
            "duodaq": version("duodaq"),
            "note": note,
            "not_read": missing,
        }
        drivers = {one.id: str(one.driver) for one in wanted if one.id in settings}
        return Preset(name, settings, units, {**facts, "drivers": drivers})

    def remove(self, name: str) -> None:
        """Remove its file.

        Raises:
            ConfigError: There is none of this name, or its file is wrong.
        """
        self.read(name)
        self._path(name).unlink(missing_ok=True)
        _log.info("a preset was removed", preset=name)

    # ---- comparing and loading -----------------------------------------------------------------------------------

    async def diff(self, name: str, instruments: Sequence[str] | None = None) -> list[Row]:
        """What loading it would change: every setting of it beside what it is now, read from the devices."""
        preset = self._chosen(self.read(name), instruments)
        rows: list[Row] = []
        there = [one.id for one in self._definitions()]
        for instrument in sorted(preset.settings, key=lambda one: there.index(one) if one in there else len(there)):
            settings, definition = preset.settings[instrument], self._known(instrument)
            declared = [one["name"] for one in settings_of(definition)] if definition is not None else []
            for setting in sorted(settings, key=lambda one: declared.index(one) if one in declared else 9999):
                unit = preset.units.get(instrument, {}).get(setting, "")
                rows.append(await self._row(definition, instrument, setting, settings[setting], unit))
        return sorted(rows, key=is_later)

    def between(self, name: str, other: str) -> list[Row]:
        """How two presets differ: `now` is the first one's, `then` the other's."""
        ours, theirs = self.read(name), self.read(other)
        rows: list[Row] = []
        for instrument in dict.fromkeys((*ours.settings, *theirs.settings)):
            mine, its = ours.settings.get(instrument, {}), theirs.settings.get(instrument, {})
            for setting in dict.fromkeys((*mine, *its)):
                unit = {**ours.units, **theirs.units}.get(instrument, {}).get(setting, "")
                what = "same" if same(mine.get(setting), its.get(setting)) else "set"
                if setting not in mine or setting not in its:
                    what = "missing"
                rows.append(Row(instrument, setting, mine.get(setting), its.get(setting), unit, what))
        return rows

    async def load(self, name: str, instruments: Sequence[str] | None = None) -> list[Row]:
        """Set what a preset has and is not so already; the rows of `diff`, as it was before.

        Raises:
            ConfigError: There is no such preset. Nothing was set.
            LifecycleError: A setting of it is not there. Nothing was set.
            OutOfRangeError: A value is beyond its limits: all of those are named. Nothing was set.
            NotInControlError: Somebody else controls one of its instruments. Nothing was set.
            UnsafeStateError: A stop is latched, and something of it could emit. Nothing was set.
            PartlySetError: A device refused one: says what was set before, and what was not.

        Cancellation: What was set stays, and the log and the recording say what; of the one in hand nobody knows.
        """
        async with self._in_hand:
            rows = await self.diff(name, instruments)
            wanted = [row for row in rows if row.what == "set"]
            self._refuse_whole(rows, wanted)
            done: list[Row] = []
            for row in wanted:
                try:
                    await self._lab.command(row.instrument, SetParameter(row.name, row.then))
                except Exception as error:
                    raise self._partly(name, done, row, wanted[len(done) + 1 :], error) from error
                except BaseException:
                    self._note_partly(name, done, row, wanted[len(done) + 1 :], "nobody waits for it any more")
                    raise
                done.append(row)
        told = {
            "preset": name,
            "set": [_told(row) for row in done],
            "left": [_said(r) for r in rows if r.what == "left"],
        }
        _log.info("a preset was loaded", **told)
        self._lab.note_in_runs("preset", told)
        return rows

    def _refuse_whole(self, rows: Sequence[Row], wanted: Sequence[Row]) -> None:
        missing = [row for row in rows if row.what == "missing"]
        if missing:
            why = "; ".join(f"{_said(row)}: {row.why}" for row in missing)
            raise LifecycleError(f"this preset cannot be loaded: {why}", left="nothing was set")
        beyond = [why for row in rows if row.what in ("set", "left") and (why := self._beyond(row))]
        if beyond:
            raise OutOfRangeError("; ".join(beyond), left="nothing was set")
        for row in wanted:
            self._lab.control.check(row.instrument, row.name)
        manager = self._lab.manager
        emitting = [_said(r) for r in wanted if manager.moves(r.instrument, SetParameter(r.name, r.then))]
        if manager.broker.latched and emitting:
            what = f"a stop-all is latched until a person resets it, and these could emit: {', '.join(emitting)}"
            raise UnsafeStateError(what, left="nothing was set")

    def _beyond(self, row: Row) -> str:
        """Why the lab file's limits, or the kind of value, refuse it; empty if they do not."""
        if isinstance(row.then, float) and not math.isfinite(row.then):
            return f"{_said(row)}: {row.then} is no number that can be set"
        if kind_of(row.now) != kind_of(row.then):
            return f"{_said(row)}: {row.then!r} is {kind_of(row.then)}, and it is {kind_of(row.now)} now"
        try:
            check_limits(self._lab.manager.definition(row.instrument), SetParameter(row.name, row.then))
        except OutOfRangeError as error:
            return f"{_said(row)}: {error.what}"
        return ""

    async def _row(
        self, definition: InstrumentDefinition | None, instrument: str, name: str, then: Any, unit: str
    ) -> Row:
        if definition is None:
            return Row(instrument, name, None, then, unit, "missing", "this lab has no such instrument")
        known = {one["name"]: one for one in settings_of(definition)}
        if name not in known:
            return Row(instrument, name, None, then, unit, "missing", "it has no such setting that can be set")
        unread: list[str] = []
        now = await self._present(instrument, name, unread)
        unit_now = known[name]["unit"]
        if now is None:
            return Row(instrument, name, None, then, unit, "missing", "; ".join(unread))
        if unit and unit_now and unit != unit_now:
            why = f"it was saved in {unit}, and is in {unit_now} now"
            return Row(instrument, name, now, then, unit, "missing", why)
        if same(now, then):
            return Row(instrument, name, now, then, unit_now, "same")
        why = left_to_a_person(definition, known[name], now, then)
        return Row(instrument, name, now, then, unit_now, "left" if why else "set", why)

    async def _present(self, instrument: str, name: str, missing: list[str]) -> Any:
        """Its value now; None if there is none that can be kept, which is then in `missing`."""
        try:
            value = plain_value(await read_setting(self._lab.manager, instrument, name, READ_S))
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the others are read
            missing.append(f"{instrument}.{name}: {error}")
            return None
        if value is None:
            missing.append(f"{instrument}.{name}: its value cannot be kept in a file")
        return value

    def _partly(
        self, preset: str, done: Sequence[Row], failed: Row, rest: Sequence[Row], error: Exception
    ) -> PartlySetError:
        self._note_partly(preset, done, failed, rest, str(error))
        return PartlySetError(
            f"preset {preset!r} was set in part: {_said(failed)} was refused: {error}",
            done=[_told(row) for row in done],
            failed=_said(failed),
            not_done=[_said(row) for row in rest],
        )

    def _note_partly(self, preset: str, done: Sequence[Row], failed: Row, rest: Sequence[Row], why: str) -> None:
        told = {"preset": preset, "set": [_told(row) for row in done], "failed": _said(failed), "error": why}
        _log.error("a preset was set in part", **told, not_set=[_said(row) for row in rest])
        self._lab.note_in_runs("preset", told)

    def _chosen(self, preset: Preset, instruments: Sequence[str] | None) -> Preset:
        if not instruments:
            return preset
        if unknown := [one for one in instruments if one not in preset.settings]:
            known = ", ".join(preset.settings) or "none"
            raise LifecycleError(f"preset {preset.name!r} has nothing of {', '.join(unknown)}; it has: {known}")
        chosen = {one: preset.settings[one] for one in preset.settings if one in instruments}
        return msgspec.structs.replace(preset, settings=chosen)

    def _known(self, instrument: str) -> InstrumentDefinition | None:
        return next((one for one in self._definitions() if one.id == instrument), None)

    def _definitions(self) -> list[InstrumentDefinition]:
        """Every instrument, as the lab file has them; those that were added later behind them."""
        manager = self._lab.manager
        there: list[str] = [status.id for status in manager.instruments()]
        order = [one.id for one in self._lab.definition.instruments]
        there.sort(key=lambda name: order.index(name) if name in order else len(order))
        return [manager.definition(name) for name in there]

    def _path(self, name: str) -> Path:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith((".", " ")):  # pyright: ignore[reportUnnecessaryIsInstance] - it may come from anywhere
            what = f"{name!r} cannot be the name of a preset"
            raise ConfigError(
                what, remedy="Use letters, digits, spaces, '.', '-' and '_', beginning with a letter or digit"
            )
        return self.folder / f"{name}.toml"


def _said(row: Row) -> str:
    return f"{row.instrument}.{row.name}"


def _told(row: Row) -> str:
    return f"{_said(row)}: {row.now} → {row.then} {row.unit}".rstrip()
