"""Runs in other forms: Parquet, NeXus HDF5, Zarr, CSV; each read back and compared before it counts."""

from duodaq.storage.export._export import FORMATS, Exported, Format, export, finalise
from duodaq.storage.export._nexus import Frames
from duodaq.storage.export._progress import Progress

__all__ = ["FORMATS", "Exported", "Format", "Frames", "Progress", "export", "finalise"]
