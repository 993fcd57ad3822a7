"""Simulated instruments that answer bytes, around one optical table; each can be told to misbehave."""

from duodaq.sim._registry import NAMES, make_simulator
from duodaq.sim._simulator import Line, Reply, Simulator, Tally
from duodaq.sim.table import LocalTable, Table, TableClient

__all__ = ["NAMES", "Line", "LocalTable", "Reply", "Simulator", "Table", "TableClient", "Tally", "make_simulator"]
