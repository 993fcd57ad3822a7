"""Simulated SCPI instruments: one IEEE 488.2 engine, and the multimeters 34401A and 34465A on it."""

from __future__ import annotations

from duodaq.sim.table import Table

from ._dmm import Multimeter
from ._engine import ScpiSimulator
from ._fault import ErrorQueue, ScpiFault
from ._grammar import MessageSplitter, Unit, units
from ._meter import Bench
from ._profile import PROFILES, DmmProfile, profile
from ._status import Event, Operation, RegisterGroup, Status, StatusByte
from ._tree import Command, CommandTree, Wait

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


def make(model: str | None, table: Table, seed: int = 0) -> Multimeter:
    """A multimeter of the model named (``34401A``, ``34465A``), its DC input on the table's photodiode.

    Raises:
        ValueError: No such model.
    """
    return Multimeter(profile(model), table, seed)
