"""Spectra-Physics Mai Tai tunable laser."""

from duodaq.drivers.maitai._codec import MaiTaiCodec
from duodaq.drivers.maitai._driver import LaserStatus, MaiTaiDriver, Permit, Progress
from duodaq.drivers.maitai._replies import LaserError, parse_error, parse_flag, parse_quantity

__all__ = [
    "LaserError",
    "LaserStatus",
    "MaiTaiCodec",
    "MaiTaiDriver",
    "Permit",
    "Progress",
    "parse_error",
    "parse_flag",
    "parse_quantity",
]
