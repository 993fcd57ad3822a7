"""Simulated SCPI instruments: one IEEE 488.2 engine, and multimeters, power supplies and an oscilloscope on it."""

from duodaq.sim.scpi._dmm import Multimeter
from duodaq.sim.scpi._engine import ScpiSimulator
from duodaq.sim.scpi._fault import ErrorQueue, ScpiFault
from duodaq.sim.scpi._grammar import MessageSplitter, Unit, units
from duodaq.sim.scpi._meter import Bench
from duodaq.sim.scpi._models import make, make_scope, make_supply
from duodaq.sim.scpi._oscilloscope import Oscilloscope
from duodaq.sim.scpi._power_supply import PowerSupply
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
    "Oscilloscope",
    "PowerSupply",
    "RegisterGroup",
    "ScpiFault",
    "ScpiSimulator",
    "Status",
    "StatusByte",
    "Unit",
    "Wait",
    "make",
    "make_scope",
    "make_supply",
    "profile",
    "units",
]
