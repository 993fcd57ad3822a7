"""Puts the simulated seam where ``pyvcam`` looks for its C module, and takes it away again."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

from duodaq.errors import LifecycleError
from duodaq.sim.pvcam._acquisition import Knobs
from duodaq.sim.pvcam._camera import SimCamera
from duodaq.sim.pvcam._profile import CameraProfile, profile
from duodaq.sim.pvcam._seam import Seam
from duodaq.sim.table import LocalTable, Table, TableClient

__all__ = ["camera_report", "configure", "external_trigger", "install", "installed", "uninstall"]

_SEAM, _CAMERA = "pyvcam.pvc", "pyvcam.camera"


class _Installation:
    """What is installed, and what was there before."""

    def __init__(self, seam: Seam, table: Table, *, owns_table: bool) -> None:
        self.seam = seam
        self._table, self._owns_table = table, owns_table
        self._had_camera = _CAMERA in sys.modules
        self._before = sys.modules.get(_SEAM)
        module = seam.module()
        self._place(module)

    def undo(self) -> None:
        """Close the cameras and put back what was there."""
        self.seam.close()
        if self._before is not None:
            self._place(self._before)
        else:
            sys.modules.pop(_SEAM, None)
            _forget(_SEAM)
        if not self._had_camera:
            sys.modules.pop(_CAMERA, None)  # it is bound to this seam
            _forget(_CAMERA)
        if self._owns_table:
            self._table.close()

    def _place(self, module: ModuleType) -> None:
        sys.modules[_SEAM] = module
        package: Any = importlib.import_module("pyvcam")
        package.pvc = module
        camera: Any = sys.modules.get(_CAMERA)
        if camera is not None:
            camera.pvc = module


_installations: list[_Installation] = []


def install(
    table: str | Table | None = None,
    seed: int = 0,
    model: str | CameraProfile = "prime-bsi",
    *,
    cameras: int = 1,
    **knobs: Any,
) -> Seam:
    """Make ``import pyvcam.camera`` work without the vendor's library, on simulated cameras.

    Args:
        table: The optical table, or its address; without one the cameras have a table of their own, its shutter open.
        seed: For their noise.
        model: ``prime-bsi``, ``prime-bsi-express``, or a profile of your own.
        cameras: How many; their names count from ``pvcamUSB_0``.
        knobs: How they misbehave, see `Knobs`.

    Raises:
        LifecycleError: It is installed already.
        ValueError: No such model.
        PortLostError: No optical table at that address.
    """
    if _installations:
        raise LifecycleError("the simulated PVCAM seam is installed already", left="uninstall() it first")
    chosen = profile(model) if isinstance(model, str) else model
    behaviour = Knobs(**knobs)
    owns = not table or isinstance(table, str)
    scene: Table = TableClient(table) if isinstance(table, str) else table or LocalTable(seed, shutter_open=True)
    names = [chosen.name_pattern.format(index) for index in range(cameras)]
    simulated = [
        SimCamera(name, chosen, scene, seed * 1009 + index, replace(behaviour)) for index, name in enumerate(names)
    ]
    seam = Seam(chosen, simulated)
    _installations.append(_Installation(seam, scene, owns_table=owns))
    return seam


def installed() -> bool:
    """Whether the simulated seam is in place in this process."""
    return bool(_installations)


def uninstall() -> None:
    """Close the simulated cameras and put back what was at the seam before. Without an installation: nothing."""
    while _installations:
        _installations.pop().undo()


def configure(**knobs: Any) -> None:
    """Change how all simulated cameras behave from now on, see `Knobs`."""
    for camera in _seam().cameras.values():
        for name, value in knobs.items():
            if not hasattr(camera.knobs, name):
                raise TypeError(f"no knob {name!r}")
            setattr(camera.knobs, name, value)


def external_trigger(name: str | None = None) -> bool:
    """A trigger on the wire of one camera (the first if none is named); False if it waits for none."""
    cameras = _seam().cameras
    return cameras[name or next(iter(cameras))].trigger(software=False)


def camera_report() -> dict[str, dict[str, Any]]:
    """What became of every frame, by camera: produced = read + dropped + discarded + in the ring."""
    return {name: camera.report() for name, camera in _seam().cameras.items()}


def _seam() -> Seam:
    if not _installations:
        raise LifecycleError("the simulated PVCAM seam is not installed", left="install() it first")
    return _installations[-1].seam


def _forget(name: str) -> None:
    package, _, attribute = name.rpartition(".")
    if hasattr(sys.modules.get(package), attribute):
        delattr(sys.modules[package], attribute)
