"""Recorded runs as Flight serves them: each stream in parts, each part with one schema, frames with their pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from duodaq.errors import DataError
from duodaq.flight._words import Lost, Replay
from duodaq.storage.journal import Gap, JournalReader
from duodaq.storage.reading import Run, Stream, open_run, runs


class Part(NamedTuple):
    """What came with the same columns and nothing missing in between; `lost` is missing before it."""

    schema: pa.Schema
    rows: int
    lost: list[Lost]


@dataclass
class _Begins:
    """What a part begins with; the schema is known with its first batch."""

    schema: pa.Schema | None
    lost: list[Lost]


class Recorded:
    """The runs of a folder, by their UUID, their number, their directory's name, or ``last``."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def runs(self) -> list[Run]:
        """All of them, the latest last."""
        return [] if self._folder is None or not self._folder.is_dir() else [*runs(self._folder)]

    def stream(self, wanted: Replay) -> Stream:
        """The stream that a ticket names.

        Raises:
            DataError: There is none.
        """
        run = self._run(wanted.run)
        if wanted.stream not in [stream.name for stream in run]:
            raise DataError(f"run {wanted.run} has no stream {wanted.stream}")
        return run[wanted.stream]

    def _run(self, name: str) -> Run:
        found = self.runs()
        if name == "last" and found:
            return found[-1]
        for run in found:
            if name in (str(run.uid), str(run.number), run.path.name):
                return open_run(run.path)
        raise DataError(f"there is no run {name!r} here")

    def pinned(self, wanted: Replay) -> Replay:
        """The same of the run that is meant now, by a name that no other run will have."""
        run = self._run(wanted.run)
        return msgspec.structs.replace(wanted, run=run.uid or run.path.name)

    def parts(self, wanted: Replay) -> tuple[list[Part], list[Lost]]:
        """The parts of a stream; and what is damaged behind the last of them."""
        found: list[Part] = []
        behind: list[Lost] = []
        for begins, batches in self._cut(wanted):
            rows = sum(batch.num_rows for batch in batches)
            if begins.schema is None:
                behind = begins.lost
            else:
                found.append(Part(begins.schema, rows, begins.lost))
        return found, behind

    def read(self, wanted: Replay) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """One part of a stream: its schema and its batches, each checked on its way.

        Raises:
            DataError: There is no such part.
        """
        for number, (_, batches) in enumerate(self._cut(wanted)):
            if number == wanted.part and (first := next(batches, None)) is not None:
                schema = first.schema
                fitting = (
                    batch.replace_schema_metadata(schema.metadata) for batch in itertools.chain([first], batches)
                )
                return schema, fitting
        raise DataError(f"{wanted.stream} of run {wanted.run} has no part {wanted.part}")

    def _cut(self, wanted: Replay) -> Iterator[tuple[_Begins, Iterator[pa.RecordBatch]]]:
        """How each part begins, and its batches: what came with one schema, and nothing is missing in between."""
        items = JournalReader(self._run(wanted.run).path).items(self.stream(wanted).name)
        begins = [_Begins(None, [])]

        def part(item: pa.RecordBatch | Gap) -> int:
            now = begins[-1]
            if isinstance(item, Gap):
                if now.schema is not None:
                    begins.append(_Begins(None, []))
                begins[-1].lost.append(Lost(item.rows, item.reason, item.after, item.before, item.file))
            elif now.schema is None:
                now.schema = item.schema
            elif not now.schema.equals(item.schema):
                begins.append(_Begins(item.schema, []))
            return len(begins)

        for number, group in itertools.groupby(items, part):
            yield begins[number - 1], (item for item in group if not isinstance(item, Gap))


def facts_of(run: Run) -> dict[str, Any]:
    """What a run is, in a listing."""
    return {"run": str(run.uid), "number": run.number, "directory": run.path.name}
