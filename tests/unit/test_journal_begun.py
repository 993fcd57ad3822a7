"""A segment that was begun and holds nothing yet, or nothing that gives it a schema, is in nobody's way."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from duodaq import open_run, schema
from duodaq.model import Scalar
from duodaq.storage.export import finalise_and_note
from duodaq.storage.journal import Journal, JournalReader, RunPage, recover
from duodaq.storage.journal._events import unpack_event
from duodaq.storage.journal._rows import RowsSegment
from duodaq.testing import QuickDisk

T = 1_790_000_000_000_000_000


def row(n: int, metadata: dict[bytes, bytes] | None = None) -> pa.RecordBatch:
    batch = schema.scalar_batch([Scalar("dmm", "a", "V", T + n, n, n / 7, "v4", None)])
    if metadata is None:
        return batch
    wider = batch.append_column("extra", pa.array([1]))  # another schema: another segment
    return wider.replace_schema_metadata(batch.schema.metadata)


def at_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, look: Callable[[Path], object]) -> None:
    """Record 80 rows and one of another schema; `look` when its segment has its index and no head yet, or just one."""
    write_head = RowsSegment.write_head

    def head(self: RowsSegment) -> bytes:
        if self.name != "dmm.a~2.arrows":
            return write_head(self)
        if moment == "before":
            look(tmp_path / "run")
        entry = write_head(self)
        if moment == "behind":
            look(tmp_path / "run")
        return entry

    monkeypatch.setattr(RowsSegment, "write_head", head)
    page = RunPage.of_now(tmp_path / "run", level="durable", provenance={})
    journal = Journal(str(tmp_path / "run"), page, QuickDisk())
    for n in range(80):
        journal.write([row(n)])
    journal.commit()
    journal.write([row(80, {})])
    journal.commit()
    journal.abandon()


def everything(path: Path) -> list[int]:
    return [
        sum(batch.num_rows for batch in JournalReader(path).batches("dmm.a")),
        len(open_run(path)["dmm.a"]),
        open_run(path)["dmm.a"].to_arrow().num_rows,
        len(open_run(path)["dmm.a"].to_pandas()),
    ]


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_an_end_before_a_segment_has_its_descriptor_costs_no_reader_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    copy = tmp_path / "copy"
    at_the_head(tmp_path, monkeypatch, moment, lambda path: shutil.copytree(path, copy))
    assert everything(copy) == [80] * 4
    found = recover(copy)
    assert (found.rows, found.gaps) == ({"dmm.a": 80}, [])
    assert everything(copy) == [80] * 4
    assert (copy / "dmm.a~2.arrows.index").exists() == (moment == "behind")
    assert not recover(copy, finished_too=True).changed
    assert finalise_and_note(copy, ("parquet",), remove_journal=True)["error"] is None
    assert everything(copy) == [80] * 4


def test_who_reads_while_a_segment_is_begun_reads_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[int]] = []
    at_the_head(tmp_path, monkeypatch, "before", lambda path: found.append(everything(path)))
    assert found == [[80] * 4]
    assert everything(tmp_path / "run") == [81] * 4


def test_rows_without_a_schema_are_a_named_gap_and_no_error_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_head(tmp_path, monkeypatch, "never", lambda path: None)
    run = tmp_path / "run"
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    told = [unpack_event(line) for line in lines]
    for line, event in zip(lines, told, strict=True):
        assert event is not None
        if event.doc.get("segment", {}).get("file") == "dmm.a~2.arrows":
            assert base64.b64decode(event.doc["segment"]["head"])
            lines.remove(line)
    (run / "events.jsonl").write_bytes(b"".join(lines))
    with open(run / "dmm.a~2.arrows", "r+b") as file:
        file.write(bytes(64))
    for _ in range(2):
        assert everything(run) == [80] * 4
        (gap,) = open_run(run)["dmm.a"].gaps()[:1]
        assert (gap.reason, gap.rows, gap.file) == ("damage", None, "dmm.a~2.arrows")
        recover(run)
