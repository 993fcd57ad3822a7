"""Runs in other forms: Parquet, NeXus HDF5, Zarr, CSV; each read back and compared before it counts.

Names are resolved when they are first used: a lab has its runs turned into them by another process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.storage.export._aside import aside
    from duodaq.storage.export._export import Exported, export, finalise
    from duodaq.storage.export._missing import in_words
    from duodaq.storage.export._nexus import Frames
    from duodaq.storage.export._progress import Progress
    from duodaq.storage.export._record import finalise_and_note
    from duodaq.storage.export._wanted import FORMATS, WANTED, Format, left_to_finalise

__all__ = [
    "FORMATS",
    "WANTED",
    "Exported",
    "Format",
    "Frames",
    "Progress",
    "aside",
    "export",
    "finalise",
    "finalise_and_note",
    "in_words",
    "left_to_finalise",
]

_HOMES = {
    "FORMATS": "duodaq.storage.export._wanted",
    "WANTED": "duodaq.storage.export._wanted",
    "Exported": "duodaq.storage.export._export",
    "Format": "duodaq.storage.export._wanted",
    "Frames": "duodaq.storage.export._nexus",
    "Progress": "duodaq.storage.export._progress",
    "aside": "duodaq.storage.export._aside",
    "export": "duodaq.storage.export._export",
    "finalise": "duodaq.storage.export._export",
    "finalise_and_note": "duodaq.storage.export._record",
    "in_words": "duodaq.storage.export._missing",
    "left_to_finalise": "duodaq.storage.export._wanted",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
