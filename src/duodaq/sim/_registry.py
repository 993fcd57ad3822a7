"""Which simulators there are, and how each is made; nothing is imported before it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from duodaq.sim._simulator import Simulator
    from duodaq.sim.table import Table

_FACTORIES = {
    "ell14": "duodaq.sim.ell14:make",
    "esp300": "duodaq.sim.esp300:make",
    "maitai": "duodaq.sim.maitai:make",
    "newport1830c": "duodaq.sim.newport1830c:make",
    "scpi-dmm": "duodaq.sim.scpi:make",
    "scpi-psu": "duodaq.sim.scpi:make_supply",
    "scpi-scope": "duodaq.sim.scpi:make_scope",
    "shutter": "duodaq.sim.shutter:make",
}

NAMES = tuple(_FACTORIES)


def make_simulator(name: str, *, model: str | None = None, table: Table, seed: int = 0) -> Simulator:
    """A new simulator of the given name.

    Raises:
        ValueError: No such simulator, or it has no such model; the message lists what there is.
    """
    if name not in _FACTORIES:
        raise ValueError(f"no simulator {name!r}; there are: {', '.join(NAMES)}")
    module, _, attribute = _FACTORIES[name].partition(":")
    factory = cast("Callable[..., Simulator]", getattr(import_module(module), attribute))
    return factory(model=model, table=table, seed=seed)
