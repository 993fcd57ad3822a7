"""The test kit: leak checks, scripted ports, virtual time, contract suites. Nothing that ships imports it."""

from duodaq.sim.replay import ReplayProcess
from duodaq.sim.replay import launch_replay as replayed
from duodaq.testing._disks import QuickDisk, RefusingDisk
from duodaq.testing._leaks import LeakWatch
from duodaq.testing._power import TracedDisk, after_power_loss
from duodaq.testing._rail import RailActor, logged, rail_lab
from duodaq.testing._recorded import growing_run, knife_edge, knife_edge_scan, record_run
from duodaq.testing._virtual_time import VirtualTimeError, VirtualTimeLoop, run_virtual, virtual_time

__all__ = [
    "LeakWatch",
    "QuickDisk",
    "RailActor",
    "RefusingDisk",
    "ReplayProcess",
    "TracedDisk",
    "VirtualTimeError",
    "VirtualTimeLoop",
    "after_power_loss",
    "growing_run",
    "knife_edge",
    "knife_edge_scan",
    "logged",
    "rail_lab",
    "record_run",
    "replayed",
    "run_virtual",
    "virtual_time",
]
