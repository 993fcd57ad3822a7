"""Which instrument a name and a model stand for."""

from __future__ import annotations

from duodaq.sim.scpi._dmm import Multimeter
from duodaq.sim.scpi._oscilloscope import Oscilloscope
from duodaq.sim.scpi._power_supply import PowerSupply
from duodaq.sim.scpi._profile import profile
from duodaq.sim.scpi._scope_profile import scope_profile
from duodaq.sim.scpi._supply_profile import supply_profile
from duodaq.sim.table import Table


def make(model: str | None, table: Table, seed: int = 0) -> Multimeter:
    """A multimeter of the model named (``34401A``, ``34465A``), its DC input on the table's photodiode.

    Raises:
        ValueError: No such model.
    """
    return Multimeter(profile(model), table, seed)


def make_supply(model: str | None, table: Table, seed: int = 0) -> PowerSupply:
    """A power supply of the model named (``E36312A``, ``E3631A``), a resistor on each output.

    Raises:
        ValueError: No such model.
    """
    return PowerSupply(supply_profile(model), seed)


def make_scope(model: str | None, table: Table, seed: int = 0) -> Oscilloscope:
    """An oscilloscope, its channel 2 on the table's photodiode.

    Raises:
        ValueError: No such model.
    """
    return Oscilloscope(scope_profile(model), table, seed)
