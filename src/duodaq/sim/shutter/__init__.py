"""A home-made TTL shutter controller, at the level of the bytes on its line."""

from duodaq.sim.shutter._controller import ShutterSimulator, make

__all__ = ["ShutterSimulator", "make"]
