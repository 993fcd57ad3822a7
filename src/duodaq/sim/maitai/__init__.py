"""A Spectra-Physics Mai Tai laser, at the level of the bytes on its line."""

from duodaq.sim.maitai._laser import MODELS, MaiTaiSimulator, make

__all__ = ["MODELS", "MaiTaiSimulator", "make"]
