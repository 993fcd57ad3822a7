"""Simulated instruments that answer bytes, around one optical table; each can be told to misbehave."""

from duodaq.sim._endpoint import PtyEndpoint, TcpEndpoint
from duodaq.sim._faults import Faults
from duodaq.sim._launch import SimProcess, TableProcess, launch, launch_table
from duodaq.sim._process import run_simulator
from duodaq.sim._registry import NAMES, make_simulator
from duodaq.sim._server import SimServer
from duodaq.sim._simulator import Line, Reply, Simulator, Tally
from duodaq.sim.table import LocalTable, Table, TableClient

__all__ = [
    "NAMES",
    "Faults",
    "Line",
    "LocalTable",
    "PtyEndpoint",
    "Reply",
    "SimProcess",
    "SimServer",
    "Simulator",
    "Table",
    "TableClient",
    "TableProcess",
    "Tally",
    "TcpEndpoint",
    "launch",
    "launch_table",
    "make_simulator",
    "run_simulator",
]
