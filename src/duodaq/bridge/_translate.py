"""Measurements to batches and batches to measurements: pure, and without a copy of any frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from duodaq.model import Image, Measurement, Scalar
from duodaq.schema import (
    frames_of,
    images_of,
    measurement_batch,
    numeric_scalars,
    scalars_of,
    schema_name,
    spectra_of,
    stage_scalars,
    vectors_of,
)

NO_V2_FORM = frozenset({"scpi_event/1"})
"""Schemas whose rows are no measurements: V2 has nothing to make of them."""

_TO_V2: dict[str, Callable[[pa.RecordBatch], Sequence[Measurement]]] = {
    "scalar/1": scalars_of,
    "vector/1": vectors_of,
    "spectrum/1": spectra_of,
    "image/1": images_of,
    "camera_frame/1": frames_of,
    "stage/1": stage_scalars,
}


def groups_of(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
    """Measurements in groups that one batch each can hold; the order within a stream is kept across its groups.

    A batch holds one stream and one kind; an image has one for itself, and scalars in it have the same metadata.
    """
    groups: list[list[Any]] = []
    open_groups: dict[tuple[str, str], list[Any]] = {}
    group: list[Any] = []
    channel = instrument = None
    for one in measurements:
        if one.channel != channel or one.instrument != instrument:
            instrument, channel = one.instrument, one.channel
            group = open_groups.get((instrument, channel), [])
        if not group or not _joins(one, group[0]):
            group = open_groups[instrument, channel] = []
            groups.append(group)
        group.append(one)
    return groups


def batches_of(measurements: Iterable[Measurement], origin: str = "v2") -> list[pa.RecordBatch]:
    """Measurements as batches marked with the runtime they come from.

    Raises:
        SchemaMismatchError: Something in them has no Arrow form (pixels of the wrong shape, say).
        ValueError: A value is no number.
    """
    return [measurement_batch(group, origin) for group in groups_of(measurements)]


def measurements_of(batch: pa.RecordBatch) -> Sequence[Measurement]:
    """The rows of a batch as measurements, with its origin.

    A stage row gives ``<axis>.position`` and ``<axis>.velocity``, a camera frame an image whose metadata has its frame
    number, a user's own schema one scalar a numeric column. Pixels share the batch's memory and are read-only.

    Raises:
        SchemaMismatchError: The batch has no number, or no time and sequence to go with it.
    """
    return _TO_V2.get(schema_name(batch.schema), numeric_scalars)(batch)


def _joins(one: Any, first: Any) -> bool:
    if one.__class__ is not first.__class__ or one.__class__ is Image:
        return False
    return one.metadata == first.metadata or one.__class__ is not Scalar
