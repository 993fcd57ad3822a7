"""The test kit: leak checks, scripted ports, virtual time, contract suites. Nothing that ships imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
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

_HOMES = {
    "LeakWatch": "duodaq.testing._leaks",
    "QuickDisk": "duodaq.testing._disks",
    "RailActor": "duodaq.testing._rail",
    "RefusingDisk": "duodaq.testing._disks",
    "ReplayProcess": "duodaq.sim.replay",
    "TracedDisk": "duodaq.testing._power",
    "VirtualTimeError": "duodaq.testing._virtual_time",
    "VirtualTimeLoop": "duodaq.testing._virtual_time",
    "after_power_loss": "duodaq.testing._power",
    "growing_run": "duodaq.testing._recorded",
    "knife_edge": "duodaq.testing._recorded",
    "knife_edge_scan": "duodaq.testing._recorded",
    "logged": "duodaq.testing._rail",
    "rail_lab": "duodaq.testing._rail",
    "record_run": "duodaq.testing._recorded",
    "replayed": "duodaq.sim.replay:launch_replay",
    "run_virtual": "duodaq.testing._virtual_time",
    "virtual_time": "duodaq.testing._virtual_time",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
