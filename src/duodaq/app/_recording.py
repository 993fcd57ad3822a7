"""A recording of a lab: its journal, with what the lab is at the start and what changes in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.alarms import Alarms
from duodaq.app._settings_now import Names, read_settings
from duodaq.clock import pause
from duodaq.config import shown, shown_text
from duodaq.dual import DualRuntimeManager
from duodaq.errors import StoppedError, StorageError
from duodaq.model import LEFT_OUT, AlarmStatus, ComponentReport, LabDefinition, Outcome, ParameterEntry, is_secret
from duodaq.storage import Recorder, RecordingSummary

_CHANGES_EVERY_S = 0.5
_REFUSALS_EVERY_S = 0.25
RECORDING = "recording"


class Recording:
    """What the lab measures from `start` on; a component as the manager closes it.

    Args:
        manager: The lab's.
        definition: The lab's.
        target: The directory.
        labels: What is said of it from the start.
        more: What else the provenance says.
        unread: The settings that were not read from their instruments for it; see `read_settings`.
        name: What its subscriptions are called.
        accepts: Which batches; all if not given.
        alarms: The lab's, if it has some: told under its name of what is wrong with it, and of those that stand when it
            begins the provenance has how they stand.
    """

    def __init__(
        self,
        manager: DualRuntimeManager,
        definition: LabDefinition,
        target: Path,
        *,
        labels: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        unread: Names = frozenset(),
        name: str = RECORDING,
        accepts: Callable[[pa.RecordBatch], bool] | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        self._manager = manager
        self._name = name
        self._alarms = alarms
        self._versions = {_name(entry): entry.version for entry in manager.parameters.snapshot()}
        self.recorder = Recorder(
            target,
            manager.v4_data,
            provenance=self._provenance(more or {}, unread),
            code=definition.directory,
            accepts=accepts,
            name="recorder" if name == RECORDING else name,
            labels=labels,
        )
        self.summary: RecordingSummary | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._told: StorageError | None = None

    async def start(self) -> None:
        """Begin.

        Raises:
            StorageError: The directory cannot be made, or holds a recording. Nothing is recorded.
        """
        await self.recorder.start()
        self._watching = [
            asyncio.create_task(self._note_changes(), name=f"{self._name}-changes"),
            asyncio.create_task(self._look_for_refusals(), name=f"{self._name}-refusals"),
        ]

    async def rotate(self, target: Path, more: Mapping[str, Any]) -> RecordingSummary:
        """End the run and go on in another one, in `target`; what the one that has ended came to.

        Raises:
            LifecycleError: It does not record. Nothing has changed.
            StorageError: The disk refused: recording goes on where it is.
        """
        unread = await read_settings(self._manager)
        self._note_ledgers()
        return await self.recorder.rotate(target, provenance=self._provenance(more, unread))

    async def close(self, timeout_s: float) -> ComponentReport:
        """End it; `summary` says what it came to. May be called again."""
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching)
        if self.summary is None:
            self._note_ledgers()
            self.summary = await self.recorder.stop(timeout_s)
            self._tell_of_refusals(over=True)
        name = f"{self._name} {self.summary.directory}"
        if self.summary.complete:
            return ComponentReport(name, Outcome.CLEAN)
        return ComponentReport(name, Outcome.FORCED, f"incomplete: {self.summary.error or self.summary.lost}")

    async def _note_changes(self) -> None:
        """Put changes of the parameter table into the event log: of each entry the newest, every half second."""
        changes = self._manager.parameters.watch(self._name)
        try:
            while True:
                for entry in await changes.get_many(1024):
                    if self._versions.get(_name(entry)) != entry.version:
                        self._versions[_name(entry)] = entry.version
                        self.recorder.note("change", _plain(entry))
                await pause(_CHANGES_EVERY_S)
        except StoppedError:
            return
        finally:
            changes.close()

    async def _look_for_refusals(self) -> None:
        while True:
            await pause(_REFUSALS_EVERY_S)
            self._tell_of_refusals(over=self.recorder.recording and not self.recorder.refusing)

    def _tell_of_refusals(self, *, over: bool) -> None:
        """Raise the alarm of a refusal that nobody was told of; where it is over, it stays until it is acknowledged."""
        if self._alarms is None:
            return
        if (latest := self.recorder.last_refusal) is not self._told:
            self._told = latest
            self._alarms.tell(self._name, str(latest))
        if over and latest is not None:
            self._alarms.tell(self._name, None)

    def _note_ledgers(self) -> None:
        """Keep with the run what there was on its way to it: both hubs, and every worker process, dead ones too."""
        self.recorder.note("ledgers", self._manager.ledgers())

    def _provenance(self, more: Mapping[str, Any], unread: Names) -> dict[str, Any]:
        manager = self._manager
        definition = manager.lab  # as it is now: a later run of a log may begin behind a change of the lab
        known = msgspec.to_builtins(definition, enc_hook=str)
        return {
            "lab": definition.name,
            "file": None if definition.file is None else _text_of(definition.file, known),
            "definition": shown("", known),
            "instruments": {
                status.id: msgspec.to_builtins(status, enc_hook=str) for status in manager.health().instruments
            },
            "alarms": [] if self._alarms is None else [_alarm(one) for one in self._alarms.status() if one.why],
            "parameters": [_plain(entry, unread=_name(entry) in unread) for entry in manager.parameters.snapshot()],
            **more,
        }


def _text_of(file: Path, known: Any) -> str | None:
    """The lab file as it is, but for the secrets in it: a recording is given to others."""
    try:
        return shown_text(file.read_text(encoding="utf-8"), known)
    except (OSError, UnicodeDecodeError):
        return None


def _alarm(one: AlarmStatus) -> dict[str, Any]:
    return {"alarm": one.name, "state": one.state, "why": one.why, "since_ns": one.since_ns, "by": one.by}


def _plain(entry: ParameterEntry, *, unread: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {
        "instrument": entry.instrument,
        "parameter": entry.name,
        "value": LEFT_OUT if is_secret(entry.name) else msgspec.to_builtins(entry.value, enc_hook=str),
        "unit": entry.unit,
        "t_ns": entry.t_ns,
    }
    return {**told, "stale": True} if entry.stale or unread else told


def _name(entry: ParameterEntry) -> tuple[str, str]:
    return entry.instrument, entry.name
