"""The file of a wire log: what was written is read back, whatever its end looks like."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc

import duodaq
from duodaq.errors import StorageError
from duodaq.model import Direction, WireRecord
from duodaq.schema import scalar, wire, wire_batch

PORTS = {"dmm": {"codec": "scpi", "address": "127.0.0.1:5025", "timeout_s": 2.0, "idle_ms": None}}


def record(sequence: int, data: bytes, direction: Direction = ">", port: str = "dmm") -> WireRecord:
    return WireRecord(10**18 + sequence, port, direction, data, "v2.dmm", sequence, "ab" * 16, sequence)


RECORDS = [record(1, b"*IDN?\n"), record(2, b"\x00\xff#21\n", "<"), record(3, b"lost", "!")]


def written(path: Path, *batches: list[WireRecord], schema: pa.Schema | None = None) -> Path:
    schema = schema or wire(PORTS, "bench")
    with ipc.new_stream(path, schema) as writer:
        for records in batches:
            writer.write_batch(wire_batch(records, schema))
    return path


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    found = duodaq.open_wirelog(written(tmp_path / "wire.arrows", RECORDS[:2], RECORDS[2:]))
    assert found.records() == RECORDS
    assert (found.lab, found.ports, found.torn, len(found)) == ("bench", PORTS, False, 3)


def test_the_folder_of_a_recording_does_as_well(tmp_path: Path) -> None:
    written(tmp_path / "wire.arrows", RECORDS)
    assert duodaq.open_wirelog(tmp_path).to_arrow().column_names == [
        "timestamp",
        "sequence",
        "port",
        "direction",
        "holder",
        "exchange",
        "trace_id",
        "data",
    ]


def test_the_records_of_one_port_can_be_had_alone(tmp_path: Path) -> None:
    other = record(1, b"x", port="stage")
    found = duodaq.open_wirelog(written(tmp_path / "w", [RECORDS[0], other, RECORDS[1]]))
    assert found.records("stage") == [other]
    assert found.records("dmm") == RECORDS[:2]


def test_what_is_missing_between_records_is_counted(tmp_path: Path) -> None:
    found = duodaq.open_wirelog(written(tmp_path / "w", [record(3, b"a"), record(7, b"b"), record(1, b"x", port="y")]))
    assert found.lost() == {"dmm": 3, "y": 0}


@pytest.mark.parametrize("cut", [1, 9, 100])
def test_a_file_that_was_cut_in_the_middle_of_a_batch_gives_all_before_it(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "w", RECORDS[:2], RECORDS[2:])
    whole = path.read_bytes()[: -8 - cut]  # 8 bytes are the end mark
    path.write_bytes(whole)
    found = duodaq.open_wirelog(path)
    assert found.records() == RECORDS[:2]
    assert found.torn


def test_a_file_without_its_end_mark_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "w", RECORDS)
    path.write_bytes(path.read_bytes()[:-8])
    found = duodaq.open_wirelog(path)
    assert found.records() == RECORDS
    assert not found.torn


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no wire log"):
        duodaq.open_wirelog(tmp_path / "none")
    with pytest.raises(StorageError, match="no wire log of this version: scalar/1"):
        duodaq.open_wirelog(_empty(tmp_path / "s", scalar()))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StorageError, match="is no wire log"):
        duodaq.open_wirelog(tmp_path / "text")


def _empty(path: Path, schema: pa.Schema) -> Path:
    with ipc.new_stream(path, schema):
        return path
