"""Runs in other forms: Parquet, NeXus HDF5, Zarr, CSV; each read back and compared before it counts."""

from duodaq.storage.export._aside import aside
from duodaq.storage.export._export import FORMATS, Exported, Format, export, finalise
from duodaq.storage.export._missing import in_words
from duodaq.storage.export._nexus import Frames
from duodaq.storage.export._progress import Progress
from duodaq.storage.export._record import WANTED, finalise_and_note, left_to_finalise

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
