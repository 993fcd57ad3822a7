"""DualRuntimeManager: starts, watches, connects and stops both runtimes over one set of ports."""

from duodaq.dual._change import Change, UnitReport
from duodaq.dual._health import Health, StateChange, WorkerStatus
from duodaq.dual._manager import DualRuntimeManager
from duodaq.dual._placement import Group, place
from duodaq.dual._safety import StopReport
from duodaq.dual._shutdown_plan import Step, allowance_s, plan_shutdown
from duodaq.workers import Factories, RuntimeFactory, RuntimeParts

__all__ = [
    "Change",
    "DualRuntimeManager",
    "Factories",
    "Group",
    "Health",
    "RuntimeFactory",
    "RuntimeParts",
    "StateChange",
    "Step",
    "StopReport",
    "UnitReport",
    "WorkerStatus",
    "allowance_s",
    "place",
    "plan_shutdown",
]
