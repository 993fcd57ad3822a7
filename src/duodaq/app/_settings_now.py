"""What instruments are set to now, asked of the instruments: for presets, and for what a recording says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from duodaq.app._preset_rules import settings_of
from duodaq.clock import Deadline
from duodaq.errors import RefusedError
from duodaq.model import (
    Command,
    GetParameter,
    InstrumentDefinition,
    InstrumentStatus,
    ManagerState,
    ParameterEntry,
)
from duodaq.telemetry import get_logger, named

ALTOGETHER_S = 1.0
"""How long the beginning of a recording waits for all instruments, side by side."""
Names = frozenset[tuple[str, str]]
"""Settings, each by instrument and name."""
_log = get_logger("lab")


class Known(Protocol):
    """The parameter table, as far as it is looked at."""

    def snapshot(self) -> tuple[ParameterEntry, ...]: ...


class Asked(Protocol):
    """Whom instruments are asked through: the manager."""

    @property
    def parameters(self) -> Known: ...

    @property
    def state(self) -> ManagerState: ...

    def instruments(self) -> tuple[InstrumentStatus, ...]: ...

    def definition(self, instrument: str) -> InstrumentDefinition: ...

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any: ...


async def read_setting(manager: Asked, instrument: str, name: str, limit_s: float | None = None) -> Any:
    """One setting as the instrument has it; the parameter table has it afterwards, if it is watched or was set.

    Reading moves and emits nothing, needs no control, and is allowed while a stop is latched.
    """
    return await manager.command(instrument, GetParameter(name), limit_s)


async def read_settings(manager: Asked, limit_s: float = ALTOGETHER_S) -> Names:
    """Have the parameter table say what is so: every setting that is watched, or was set, is read from its instrument.

    All instruments are asked side by side, and each for one after the other.

    Returns:
        Those that were not read, since their instrument is not there, is busy, or did not say within `limit_s`.

    Cancellation: nobody waits for an instrument any longer; what was read is in the table.
    """
    if manager.state is not ManagerState.RUNNING:
        return frozenset()
    wanted = _wanted(manager)
    unread = {(instrument, name) for instrument, names in wanted.items() for name in names}
    if not unread:
        return frozenset()
    asking = [
        asyncio.create_task(_read_all(manager, instrument, names, unread), name=f"settings of {instrument}")
        for instrument, names in wanted.items()
    ]
    limit = Deadline(limit_s)
    try:
        await asyncio.wait(asking, timeout=limit.left_s)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if unread:
        missing = sorted(f"{instrument}.{name}" for instrument, name in unread)
        _log.warning("settings could not be read for the recording; it calls them stale", settings=missing)
    return frozenset(unread)


async def _read_all(manager: Asked, instrument: str, names: Sequence[str], unread: set[tuple[str, str]]) -> None:
    for name in names:
        try:
            await read_setting(manager, instrument, name)
        except RefusedError:
            pass  # it cannot be read at all: what was last accepted stands
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, its other settings are read
            _log.info("a setting could not be read", instrument=instrument, setting=name, error=named(error))
            continue
        unread.discard((instrument, name))


def _wanted(manager: Asked) -> dict[str, list[str]]:
    """Of each instrument what its stanza names and, of what the table has of it, what can be set."""
    known: dict[str, list[str]] = {}
    for entry in manager.parameters.snapshot():
        known.setdefault(entry.instrument, []).append(entry.name)
    found: dict[str, list[str]] = {}
    for status in manager.instruments():
        definition = manager.definition(status.id)
        names = dict.fromkeys((*definition.settings, *definition.watched))
        names |= dict.fromkeys(_set_since(definition, known.get(status.id, ())))
        if names:
            found[status.id] = [*names]
    return found


def _set_since(definition: InstrumentDefinition, known: Sequence[str]) -> list[str]:
    if definition.runtime == "v2" or not known:
        return [*known]  # the table has nothing else of such an instrument
    plain = {one["name"] for one in settings_of(definition) if not one["emits"]}
    return [name for name in known if name in plain]
