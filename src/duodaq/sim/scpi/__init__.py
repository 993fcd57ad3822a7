"""Simulated SCPI instruments: one IEEE 488.2 engine, and the multimeters 34401A and 34465A on it."""

from duodaq.sim.scpi._dmm import Multimeter
from duodaq.sim.scpi._engine import ScpiSimulator
from duodaq.sim.scpi._fault import ErrorQueue, ScpiFault
from duodaq.sim.scpi._grammar import MessageSplitter, Unit, units
from duodaq.sim.scpi._meter import Bench
from duodaq.sim.scpi._models import make
from duodaq.sim.scpi._profile import PROFILES, DmmProfile, profile
from duodaq.sim.scpi._status import Event, Operation, RegisterGroup, Status, StatusByte
from duodaq.sim.scpi._tree import Command, CommandTree, Wait

__all__ = [
    "PROFILES",
    "Bench",
    "Command",
    "CommandTree",
    "DmmProfile",
    "ErrorQueue",
    "Event",
    "MessageSplitter",
    "Multimeter",
    "Operation",
    "RegisterGroup",
    "ScpiFault",
    "ScpiSimulator",
    "Status",
    "StatusByte",
    "Unit",
    "Wait",
    "make",
    "profile",
    "units",
]
