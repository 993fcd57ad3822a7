# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# PyVCAM ships without type information; everything it returns is given a type at this seam.
"""PyVCAM's ``Camera``, as far as it is used here. Every call blocks and belongs into the camera's own thread."""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from duodaq.clock import utc_ns
from duodaq.drivers.pvcam._settings import CameraSettings, Frame, FrameCount, Roi
from duodaq.errors import ConfigError, OutOfRangeError, PortLostError, PortOpenError, RefusedError

__all__ = ["VendorCamera"]

_EXP_RES_MICROSECONDS = 1
_FRAME_TIMEOUT = "Frame timeout"
_library_lock = threading.Lock()
_library_users = 0


class VendorCamera:
    """One camera through PyVCAM; `name` chooses it, the first one without."""

    def __init__(self, name: str | None = None, buffer_frames: int = 16) -> None:
        self.count = FrameCount()
        self._name = name
        self._buffer_frames = buffer_frames
        self._camera: Any = None
        self._settings = CameraSettings()
        self._numbered = False
        self._holds_library = False

    @property
    def settings(self) -> CameraSettings:
        """What was applied last."""
        return self._settings

    def open(self) -> None:
        """Open the camera and switch its frame numbers on.

        Raises:
            ConfigError: PyVCAM or the vendor's library is not installed.
            PortOpenError: There is no such camera, or another program has it.
        """
        camera_module = _vendor_module()
        _hold_library()
        self._holds_library = True
        try:
            names = camera_module.Camera.get_available_camera_names()
            if not names or (self._name is not None and self._name not in names):
                raise PortOpenError(f"no camera {self._name or ''}; PVCAM finds {', '.join(names) or 'none'}")
            self._camera = camera_module.Camera.select_camera(self._name or names[0])
            self._camera.open()
            self._enable_metadata()
        except RuntimeError as error:
            self.close()
            raise PortOpenError(f"the camera did not open: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End what runs and give the camera back; may be called again."""
        camera, self._camera = self._camera, None
        try:
            if camera is not None and camera.is_open:
                camera.finish()
                camera.close()
        finally:
            if self._holds_library:
                self._holds_library = False
                _release_library()

    def apply(self, settings: CameraSettings) -> CameraSettings:
        """Apply all of `settings`; what the camera then has.

        Raises:
            OutOfRangeError: A value it does not have. What was applied before that one stays.
        """
        camera = self._opened()
        try:
            if settings.speed is not None:
                camera.speed = settings.speed
            if settings.gain is not None:
                camera.gain = settings.gain
            if settings.mode is not None:
                camera.exp_mode = settings.mode
            camera.reset_rois()  # set_roi appends to what is there
            camera.binning = settings.binning
            if settings.roi is not None:
                camera.set_roi(settings.roi.x, settings.roi.y, settings.roi.width, settings.roi.height)
            self._apply_exposure(camera, settings.exposure_s)
        except (ValueError, AttributeError) as error:
            raise OutOfRangeError(f"the camera does not take this: {error}") from error
        self._settings = settings
        return settings

    def start_live(self) -> None:
        """Begin to fill the ring of frames."""
        self.count.restart()
        self._opened().start_live(exp_time=self._opened().exp_time, buffer_frame_count=self._buffer_frames)

    def start_single(self) -> None:
        """Begin to take one frame."""
        self.count.restart()
        self._opened().start_seq(exp_time=self._opened().exp_time, num_frames=1)

    def finish(self) -> None:
        """End an acquisition; nothing happens without one."""
        if self._camera is not None:
            self._camera.finish()

    def poll(self, timeout_ms: int) -> Frame | None:
        """The oldest waiting frame, copied once out of the ring, which PVCAM writes again; None after `timeout_ms`.

        Raises:
            PortLostError: The acquisition ended by itself; the text is the camera's.
        """
        try:
            raw, _, count = self._opened().poll_frame(timeout_ms=timeout_ms, oldestFrame=True, copyData=True)
        except RuntimeError as error:
            if _FRAME_TIMEOUT in str(error):
                return None
            raise PortLostError(f"the camera stopped: {error}") from error
        return self._frame(raw, int(count))

    def status(self) -> str:
        """What PVCAM says of the acquisition: EXPOSURE_IN_PROGRESS, READOUT_NOT_ACTIVE …"""
        return str(self._opened().check_frame_status())

    def temperature_c(self) -> float:
        """The sensor's temperature in °C."""
        return float(self._opened().temp)

    def capabilities(self) -> dict[str, Any]:
        """What the camera can do, as plain values."""
        camera = self._opened()
        return {
            "name": str(camera.name),
            "chip": str(camera.chip_name),
            "serial": str(camera.serial_no),
            "firmware": str(camera.cam_fw),
            "sensor_size": [int(side) for side in camera.sensor_size],
            "bit_depth": int(camera.bit_depth),
            "exposure_modes": {str(key): int(value) for key, value in camera.exp_modes.items()},
            "binnings": [list(pair) for pair in camera.binnings] if camera.binnings else None,
            "speeds_and_gains": _plain(camera.port_speed_gain_table),
            "frame_numbers": self._numbered,
        }

    def _opened(self) -> Any:
        if self._camera is None:
            raise PortLostError("the camera is not open")
        return self._camera

    def _enable_metadata(self) -> None:
        try:
            self._camera.metadata_enabled = True
            self._numbered = True
        except (AttributeError, RuntimeError):  # an old camera: frames are counted by the host instead
            self._numbered = False

    def _apply_exposure(self, camera: Any, exposure_s: float) -> None:
        try:
            camera.exp_res = _EXP_RES_MICROSECONDS
            camera.exp_time = round(exposure_s * 1e6)
        except (AttributeError, ValueError, RuntimeError):
            _set_milliseconds(camera, exposure_s)

    def _frame(self, raw: dict[str, Any], count: int) -> Frame:
        t_ns = utc_ns()
        pixels: npt.NDArray[Any] = np.asarray(raw["pixel_data"])
        if pixels.ndim != 2:
            raise RefusedError("several regions of interest in one frame are not taken apart here")
        header = raw.get("meta_data", {}).get("frame_header", {})
        number = int(header.get("frameNr", count))
        stamps = (int(header["timestampBofPs"]), int(header["timestampEofPs"])) if "timestampBofPs" in header else None
        return Frame(number, pixels, t_ns, self._settings, self._roi(), self.count.take(number), stamps)

    def _roi(self) -> Roi:
        roi = self._opened().rois[0]
        return Roi(int(roi.s1), int(roi.p1), int(roi.s2 - roi.s1 + 1), int(roi.p2 - roi.p1 + 1))


def _set_milliseconds(camera: Any, exposure_s: float) -> None:
    with contextlib.suppress(AttributeError):  # a camera without the choice counts in milliseconds
        camera.exp_res = 0
    camera.exp_time = round(exposure_s * 1e3)


def _vendor_module() -> Any:
    try:
        return importlib.import_module("pyvcam.camera")
    except ImportError as error:
        raise ConfigError(
            f"PyVCAM cannot be loaded: {error}",
            key="driver",
            remedy="Install PyVCAM and the PVCAM library, or set args = { simulated = true } for the shipped simulator",
        ) from error


def _hold_library() -> None:
    global _library_users
    with _library_lock:
        if _library_users == 0:
            importlib.import_module("pyvcam.pvc").init_pvcam()
        _library_users += 1


def _release_library() -> None:
    global _library_users
    with _library_lock:
        _library_users -= 1
        if _library_users == 0:
            importlib.import_module("pyvcam.pvc").uninit_pvcam()


def _plain(table: Any) -> Any:
    if isinstance(table, dict):
        return {str(key): _plain(value) for key, value in table.items()}
    return list(table) if isinstance(table, list | tuple) else table
