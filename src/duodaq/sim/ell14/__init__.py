"""Thorlabs Elliptec rotators on one line, at the level of the bytes on it."""

from duodaq.sim.ell14._bus import MODELS, ElliptecBus, make
from duodaq.sim.ell14._rotator import TABLE_AXIS

__all__ = ["MODELS", "TABLE_AXIS", "ElliptecBus", "make"]
