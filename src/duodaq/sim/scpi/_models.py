"""Which multimeter a name stands for."""

from __future__ import annotations

from duodaq.sim.scpi._dmm import Multimeter
from duodaq.sim.scpi._profile import profile
from duodaq.sim.table import Table


def make(model: str | None, table: Table, seed: int = 0) -> Multimeter:
    """A multimeter of the model named (``34401A``, ``34465A``), its DC input on the table's photodiode.

    Raises:
        ValueError: No such model.
    """
    return Multimeter(profile(model), table, seed)
