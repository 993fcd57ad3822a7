"""Recorded runs as Flight serves them: each stream in parts, each part with one schema, frames with their pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from duodaq.errors import DataError, StorageError
from duodaq.flight._words import Replay
from duodaq.storage.journal import Gap, JournalReader
from duodaq.storage.reading import Run, Stream, open_run, runs


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

    def parts(self, wanted: Replay) -> list[tuple[pa.Schema, int]]:
        """Of each part of a stream its schema and its rows."""
        return [(schema, sum(batch.num_rows for batch in batches)) for schema, batches in self._cut(wanted)]

    def read(self, wanted: Replay) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """One part of a stream: its schema and its batches, each checked on its way.

        Raises:
            DataError: There is no such part.
        """
        for number, (schema, batches) in enumerate(self._cut(wanted)):
            if number == wanted.part:
                return schema, (batch.replace_schema_metadata(schema.metadata) for batch in batches)
        raise DataError(f"{wanted.stream} of run {wanted.run} has no part {wanted.part}")

    def _cut(self, wanted: Replay) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        batches = _batches(self.stream(wanted), self._run(wanted.run).path)
        schema: list[pa.Schema] = []

        def part(batch: pa.RecordBatch) -> int:
            if not schema or not schema[-1].equals(batch.schema):
                schema.append(batch.schema)
            return len(schema)

        for _, group in itertools.groupby(batches, part):
            yield schema[-1], group


def _batches(stream: Stream, folder: Path) -> Iterator[pa.RecordBatch]:
    """As published where the journal still has them; from Parquet, where a run was finalised and its rows removed."""
    try:
        reader = JournalReader(folder)
        kept = all((folder / facts.file).exists() for facts in reader.segments(stream.name))
    except StorageError:
        kept, reader = False, None
    if kept and reader is not None:
        yield from (item for item in reader.items(stream.name) if not isinstance(item, Gap))
        return
    for table in stream.tables():
        yield from table.to_batches()


def facts_of(run: Run) -> dict[str, Any]:
    """What a run is, in a listing."""
    return {"run": str(run.uid), "number": run.number, "directory": run.path.name}
