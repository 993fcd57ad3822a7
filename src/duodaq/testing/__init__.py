"""The test kit: leak checks, scripted ports, virtual time, contract suites. Nothing that ships imports it."""

from duodaq.testing._leaks import LeakWatch
from duodaq.testing._virtual_time import VirtualTimeError, VirtualTimeLoop, run_virtual, virtual_time

__all__ = ["LeakWatch", "VirtualTimeError", "VirtualTimeLoop", "run_virtual", "virtual_time"]
