"""Scans: Bluesky's plans and run engine over the instruments of a lab."""

from duodaq.bluesky._devices import FutureStatus, ScanAxis, ScanReader
from duodaq.bluesky._promise import Axis, Measured, Reader
from duodaq.bluesky._run import ScanInterruptedError, ScanRun
from duodaq.bluesky._scan import run_scan

__all__ = [
    "Axis",
    "FutureStatus",
    "Measured",
    "Reader",
    "ScanAxis",
    "ScanInterruptedError",
    "ScanReader",
    "ScanRun",
    "run_scan",
]
