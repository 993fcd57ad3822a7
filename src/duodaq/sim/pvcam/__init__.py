"""Simulated PVCAM cameras behind PyVCAM's own seam: ``install()``, then ``import pyvcam.camera`` as usual.

PyVCAM's C side is one module of 27 functions, ``pyvcam.pvc``. A Python object takes its place; the cameras behind it
look at the optical table.
"""

from __future__ import annotations

from duodaq.sim.pvcam._acquisition import Knobs
from duodaq.sim.pvcam._install import camera_report, configure, external_trigger, install, installed, uninstall
from duodaq.sim.pvcam._profile import PROFILES, CameraProfile, Feature, Speed
from duodaq.sim.pvcam._seam import FUNCTIONS, Seam

__all__ = [
    "FUNCTIONS",
    "PROFILES",
    "CameraProfile",
    "Feature",
    "Knobs",
    "Seam",
    "Speed",
    "camera_report",
    "configure",
    "external_trigger",
    "install",
    "installed",
    "uninstall",
]
