"""A Newport 1830-C optical power meter, at the level of the bytes on its line."""

from duodaq.sim.newport1830c._meter import MODELS, Newport1830CSimulator, make

__all__ = ["MODELS", "Newport1830CSimulator", "make"]
