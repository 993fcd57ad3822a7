"""A Newport ESP300 motion controller with three axes, at the level of the bytes on its line."""

from duodaq.sim.esp300._controller import MODELS, Esp300Simulator, make

__all__ = ["MODELS", "Esp300Simulator", "make"]
