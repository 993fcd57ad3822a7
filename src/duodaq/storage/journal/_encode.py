"""Batches as the messages that an Arrow IPC stream consists of: each can be read with the head alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import ipc

_RECORD_BATCH = "record batch"


class BatchEncoder:
    """Turns batches of one schema into bytes; the first one makes the head. With `compress`, their buffers are."""

    def __init__(self, first: pa.RecordBatch, *, compress: bool = False) -> None:
        self._compress = compress and pa.Codec.is_available("zstd")
        self.schema = first.schema
        self._metadata: dict[bytes, bytes] = first.schema.metadata or {}
        self._columns = [i for i, field in enumerate(first.schema) if pa.types.is_dictionary(field.type)]
        self._dictionaries: list[Any] = [first.column(i).dictionary for i in self._columns]
        self._schema_bytes = len(self.schema.serialize())
        self.head = self._head(first)
        self._own = any(_hides_dictionary(field.type) for field in first.schema)
        self._nothing = (
            None
            if self._own
            else pa.RecordBatch.from_arrays(
                [_empty_like(first.column(i)) for i in range(first.num_columns)], schema=first.schema
            )
        )

    def fits(self, schema: pa.Schema) -> bool:
        """Whether batches of `schema` can go into the same segment."""
        return self.schema.equals(schema) and _field_facts(self.schema) == _field_facts(schema)

    def encode_all(self, batches: Sequence[pa.RecordBatch]) -> tuple[Any, list[int]] | None:
        """The messages of all batches in one buffer, and where each ends in it; None if not all can do with the head.

        One writer for many batches compares dictionaries in Arrow, at a quarter of what that takes in Python.
        """
        if self._nothing is None or self._own or not all(self.schema.equals(b.schema, True) for b in batches):
            return None
        sink = pa.BufferOutputStream()
        writer: Any = ipc.new_stream(sink, self.schema)
        writer.write_batch(self._nothing)
        start = sink.tell()
        ends: list[int] = []
        try:
            for batch in batches:
                writer.write_batch(batch)
                ends.append(sink.tell() - start)
        except Exception:  # noqa: BLE001 - whatever is wrong with one of them, `encode` says of which
            return None
        if writer.stats.num_replaced_dictionaries:
            return None
        return sink.getvalue().slice(start), ends

    def encode(self, batch: pa.RecordBatch) -> tuple[Any, bool]:
        """The messages of a batch, and whether they bring their own dictionaries.

        Raises:
            pa.ArrowException: It cannot be written; the encoder is as before.
        """
        told = self._differing(batch.schema)
        own = self._own or not self._has_dictionaries_of_head(batch)
        if not own and told is None and not self._compress:
            return batch.serialize(), False
        whole = self._stream(batch, told)
        start = self._schema_bytes if own else _start_of_batch(whole)
        self._own = own
        return whole.slice(start), own

    def _has_dictionaries_of_head(self, batch: pa.RecordBatch) -> bool:
        return all(batch.column(i).dictionary.equals(d) for i, d in zip(self._columns, self._dictionaries, strict=True))

    def _head(self, first: pa.RecordBatch) -> bytes:
        whole = self._stream(first, None)
        return whole.slice(0, _start_of_batch(whole)).to_pybytes()

    def _stream(self, batch: pa.RecordBatch, told: dict[bytes, bytes] | None) -> Any:
        sink = pa.BufferOutputStream()
        options: Any = ipc.IpcWriteOptions(compression="zstd" if self._compress else None)
        writer: Any = ipc.new_stream(sink, self.schema, options=options)
        writer.write_batch(batch, custom_metadata=told)
        return sink.getvalue()

    def _differing(self, schema: pa.Schema) -> dict[bytes, bytes] | None:
        theirs: dict[bytes, bytes] = schema.metadata or {}
        if theirs == self._metadata:
            return None
        keys = {**self._metadata, **theirs}
        return {key: theirs.get(key, b"") for key in keys if self._metadata.get(key) != theirs.get(key)}


def decode(head: bytes, parts: Iterable[bytes]) -> list[pa.RecordBatch]:
    """The batches whose messages are `parts`, each with the metadata that it was published with."""
    reader: Any = ipc.open_stream(pa.py_buffer(b"".join([head, *parts])))
    metadata: dict[bytes, bytes] = reader.schema.metadata or {}
    batches: list[pa.RecordBatch] = []
    while True:
        try:
            batch, told = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return batches
        if told:
            own = dict(told)
            kept = {key: value for key, value in metadata.items() if key not in own}
            batch = batch.replace_schema_metadata({**kept, **{key: value for key, value in own.items() if value}})
        batches.append(batch)


def schema_of(head: bytes) -> pa.Schema:
    """The schema in a head.

    Raises:
        pa.ArrowException, OSError: There is none.
    """
    return ipc.read_schema(pa.py_buffer(head))


def filler(schema: pa.Schema, length: int) -> bytes | None:
    """One message without rows that is `length` bytes long; None if that is too short for one.

    The length of a message's metadata may be larger than what it needs: readers skip the rest.
    """
    dictionaries = [_empty(field.type) for field in schema]
    message: bytes = pa.RecordBatch.from_arrays(dictionaries, schema=schema).serialize().to_pybytes()
    if length < len(message) or length % 8:
        return None
    return message[:4] + (length - 8).to_bytes(4, "little") + message[8:] + bytes(length - len(message))


def _empty(kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.nulls(0, kind.storage_type))
    return pa.nulls(0, kind)


def _empty_like(column: Any) -> Any:
    """No rows of a column, with its dictionary."""
    if not pa.types.is_dictionary(column.type):
        return _empty(column.type)
    indices = pa.nulls(0, column.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary, ordered=column.type.ordered)


def _start_of_batch(stream: Any) -> int:
    source = pa.BufferReader(stream)
    while True:
        start = source.tell()
        if ipc.read_message(source).type == _RECORD_BATCH:
            return start


def _hides_dictionary(kind: Any) -> bool:
    return not pa.types.is_dictionary(kind) and "dictionary<" in str(kind)


def _field_facts(schema: pa.Schema) -> list[Any]:
    return [field.metadata for field in schema]
