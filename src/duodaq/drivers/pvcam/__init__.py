"""Cameras of Teledyne Photometrics, through PyVCAM; no wire, so no codec: the vendor's library is the protocol."""

from duodaq.drivers.pvcam._driver import PvcamDriver
from duodaq.drivers.pvcam._settings import CameraSettings, Frame, FrameCount, Roi

__all__ = ["CameraSettings", "Frame", "FrameCount", "PvcamDriver", "Roi"]
