"""Scans: Bluesky's plans and run engine over the instruments of a lab, and its instruments as devices of plans."""

from duodaq.bluesky._axis import AxisDevice, ParameterDevice
from duodaq.bluesky._fly import StreamFlyer
from duodaq.bluesky._hold import ScanAbortedError
from duodaq.bluesky._instrument import InstrumentDevice, ReaderDevice
from duodaq.bluesky._lab import Devices, devices
from duodaq.bluesky._promise import Axis, Measured, Reader
from duodaq.bluesky._run import ScanRun
from duodaq.bluesky._scan import progress_bar, run_grid, run_scan
from duodaq.bluesky._status import FutureStatus, MoveStatus
from duodaq.errors import ScanInterruptedError

__all__ = [
    "Axis",
    "AxisDevice",
    "Devices",
    "FutureStatus",
    "InstrumentDevice",
    "Measured",
    "MoveStatus",
    "ParameterDevice",
    "Reader",
    "ReaderDevice",
    "ScanAbortedError",
    "ScanInterruptedError",
    "ScanRun",
    "StreamFlyer",
    "devices",
    "progress_bar",
    "run_grid",
    "run_scan",
]
