"""The only translator between V2 and V4, and the parameter table that both read."""

from duodaq.bridge._bridge import Bridge
from duodaq.bridge._parameters import ParameterTable
from duodaq.bridge._translate import batches_of, measurements_of

__all__ = ["Bridge", "ParameterTable", "batches_of", "measurements_of"]
