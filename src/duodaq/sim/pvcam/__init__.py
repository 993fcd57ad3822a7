"""Simulated PVCAM cameras behind PyVCAM's own seam: ``install()``, then ``import pyvcam.camera`` as usual.

PyVCAM's C side is one module of 27 functions, ``pyvcam.pvc``. A Python object takes its place; the cameras behind it
look at the optical table.
"""

from __future__ import annotations

from ._acquisition import Knobs
from ._install import camera_report, configure, external_trigger, install, installed, uninstall
from ._profile import PROFILES, CameraProfile, Feature, Speed
from ._seam import FUNCTIONS, Seam

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
