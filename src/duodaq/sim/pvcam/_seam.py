"""The 27 functions of ``pyvcam.pvc``, over simulated cameras: same arguments, same results, same errors."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any, cast

from duodaq.sim.pvcam._acquisition import Frame
from duodaq.sim.pvcam._camera import SimCamera
from duodaq.sim.pvcam._ids import Attr, Param, Status
from duodaq.sim.pvcam._parameters import PvcamError
from duodaq.sim.pvcam._picture import Region
from duodaq.sim.pvcam._profile import CameraProfile

__all__ = ["FUNCTIONS", "Seam"]

FUNCTIONS = (
    "init_pvcam",
    "uninit_pvcam",
    "get_pvcam_version",
    "get_cam_fw_version",
    "get_cam_total",
    "get_cam_name",
    "open_camera",
    "close_camera",
    "get_param",
    "set_param",
    "check_param",
    "setup_live",
    "setup_seq",
    "start_set_live",
    "start_set_seq",
    "start_live",
    "start_seq",
    "check_frame_status",
    "get_frame",
    "finish_seq",
    "abort",
    "stop_live",
    "reset_frame_counter",
    "set_exp_modes",
    "read_enum",
    "reset_pp",
    "sw_trigger",
)
_UINT16_TYPENUM = 4
_UNS16, _UNS32 = 0xFFFF, 0xFFFFFFFF
"""What the wrapper leaves of the numbers it is given: it parses them as unsigned without looking at their size."""
_MONO16 = 0
_ROI_TIMESTAMPS = 1


class Seam:
    """Everything behind ``pyvcam.pvc``. The methods named in `FUNCTIONS` are the module's functions."""

    def __init__(self, profile: CameraProfile, cameras: list[SimCamera]) -> None:
        self.profile = profile
        self.cameras = {camera.name: camera for camera in cameras}
        self._handles: dict[int, SimCamera] = {}
        self._initialised = False
        self._lock = threading.Lock()

    def module(self) -> ModuleType:
        """A module object to put at ``sys.modules["pyvcam.pvc"]``."""
        module = ModuleType("pyvcam.pvc", "Provides an interface to simulated PVCAM cameras.")
        for name in FUNCTIONS:
            setattr(module, name, getattr(self, name))
        return module

    def close(self) -> None:
        """Close every camera."""
        with self._lock:
            for camera in self._handles.values():
                camera.close()
            self._handles.clear()
            self._initialised = False

    # Library

    def init_pvcam(self) -> None:
        if self._initialised:
            raise RuntimeError("PVCAM has already been initialized")
        self._initialised = True

    def uninit_pvcam(self) -> None:
        self._require_library()
        self.close()

    def get_pvcam_version(self) -> str:
        version = self.profile.pvcam_version
        return f"{version >> 8 & 0xFF}.{version >> 4 & 0xF}.{version & 0xF}"

    def get_cam_fw_version(self, handle: int) -> str:
        version = self._open(handle).profile.firmware
        return f"{version >> 8 & 0xFF}.{version & 0xFF}"

    def get_cam_total(self) -> int:
        self._require_library()
        return len(self.cameras)

    def get_cam_name(self, index: int) -> str:
        self._require_library()
        if not 0 <= index < len(self.cameras):
            raise RuntimeError("The camera number is invalid")
        return list(self.cameras)[index]

    def open_camera(self, name: str) -> int:
        self._require_library()
        camera = self.cameras.get(name)
        if camera is None:
            raise RuntimeError("The camera name was not found")
        with self._lock:
            _pvcam(camera.open)
            handle = next(number for number in range(len(self.cameras) + 1) if number not in self._handles)
            self._handles[handle] = camera
        return handle

    def close_camera(self, handle: int) -> None:
        camera = self._open(handle)
        with self._lock:
            del self._handles[handle]
        camera.close()

    # Parameters

    def get_param(self, handle: int, param: int, attr: int) -> Any:
        parameters = self._open(handle).parameters
        if attr == Attr.AVAIL:
            return parameters.available(param)
        self._require_param(parameters, param)
        if attr not in Attr.__members__.values():
            raise RuntimeError(f"Failed to match parameter attribute ({attr}).")
        return _pvcam(parameters.attribute, param, attr)

    def set_param(self, handle: int, param: int, value: Any) -> None:
        parameters = self._open(handle).parameters
        self._require_param(parameters, param)
        _pvcam(parameters.assign, param, value)

    def check_param(self, handle: int, param: int) -> bool:
        return self._open(handle).parameters.available(param)

    def read_enum(self, handle: int, param: int) -> dict[str, int]:
        parameters = self._open(handle).parameters
        self._require_param(parameters, param)
        return _pvcam(parameters.names, param)

    def reset_pp(self, handle: int) -> None:
        self._open(handle).parameters.reset_features()

    def set_exp_modes(self, handle: int, mode: int) -> None:
        _pvcam(self._open(handle).parameters.set_modes, mode)

    # Acquisition

    def setup_live(self, handle: int, rois: list[Any], exposure: int, mode: int, frames: int, path: str | None) -> int:
        _require_whole(handle, exposure, mode, frames)
        camera, regions = self._open(handle), _regions(rois)
        slots = frames & _UNS32
        return _pvcam(camera.set_up, regions, exposure & _UNS32, mode, slots=slots, live=True, path=path)

    def setup_seq(self, handle: int, rois: list[Any], exposure: int, mode: int, frames: int) -> int:
        _require_whole(handle, exposure, mode, frames)
        camera, regions = self._open(handle), _regions(rois)
        return _pvcam(camera.set_up, regions, exposure & _UNS32, mode, slots=frames & _UNS16, live=False)

    def start_set_live(self, handle: int) -> None:
        _pvcam(self._mapped(handle).start)

    def start_set_seq(self, handle: int) -> None:
        _pvcam(self._mapped(handle).start)

    def start_live(self, handle: int, rois: list[Any], exposure: int, mode: int, frames: int, path: str | None) -> int:
        size = self.setup_live(handle, rois, exposure, mode, frames, path)
        self.start_set_live(handle)
        return size

    def start_seq(self, handle: int, rois: list[Any], exposure: int, mode: int, frames: int) -> int:
        size = self.setup_seq(handle, rois, exposure, mode, frames)
        self.start_set_seq(handle)
        return size

    def check_frame_status(self, handle: int) -> str:
        status, sequence = self._mapped(handle).status()
        return "READOUT_COMPLETE" if sequence and status is Status.FRAME_AVAILABLE else status.name

    def get_frame(
        self, handle: int, rois: Any, typenum: int, timeout_ms: int, oldest: bool
    ) -> tuple[dict[str, Any], float, int]:
        _require_whole(handle, typenum, timeout_ms)
        if not isinstance(rois, list):
            raise ValueError("Invalid parameters.")
        camera = self._mapped(handle)
        if typenum != _UINT16_TYPENUM:
            raise ValueError(f"Invalid NumPy type number: {typenum}")
        frame, fps, metadata = camera.wait_frame(timeout_ms, oldest=bool(oldest))
        result: dict[str, Any] = {}
        if metadata:
            result["meta_data"] = _metadata(camera, frame)
        result["pixel_data"] = list(frame.pixels)
        return result, fps, frame.count

    def finish_seq(self, handle: int) -> None:
        self._mapped(handle).stop()

    def abort(self, handle: int) -> None:
        self._mapped(handle).stop()

    def stop_live(self, handle: int) -> None:
        self.abort(handle)

    def reset_frame_counter(self, handle: int) -> None:
        self._mapped(handle).reset_frame_count()

    def sw_trigger(self, handle: int) -> None:
        if not self._open(handle).trigger(software=True):
            raise ValueError("Failed to perform software trigger.")

    def _require_library(self) -> None:
        if not self._initialised:
            raise RuntimeError("PVCAM has not been initialized")

    def _open(self, handle: int) -> SimCamera:
        """The camera of a handle, as the SDK looks it up."""
        self._require_library()
        _require_whole(handle)
        camera = self._handles.get(handle)
        if camera is None:
            raise RuntimeError("The camera handle is invalid")
        return camera

    def _mapped(self, handle: int) -> SimCamera:
        """The camera of a handle, as the wrapper looks it up."""
        _require_whole(handle)
        camera = self._handles.get(handle)
        if camera is None:
            raise KeyError("Invalid camera handle (map::at).")
        return camera

    @staticmethod
    def _require_param(parameters: Any, param: int) -> None:
        if not parameters.available(param):
            raise AttributeError(f"Invalid setting for this camera. Parameter ID 0x{param:08X} is not available.")


def _pvcam(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except PvcamError as exc:
        raise RuntimeError(str(exc)) from None


def _require_whole(*values: Any) -> None:
    if not all(isinstance(value, int) for value in values):
        raise ValueError("Invalid parameters.")


def _regions(rois: Any) -> list[Region]:
    if not isinstance(rois, list):
        raise ValueError("Invalid parameters.")
    found: list[Region] = []
    for roi in cast("list[Any]", rois):  # PyVCAM's own class, known by its fields
        region = tuple(int(getattr(roi, name)) for name in ("s1", "s2", "sbin", "p1", "p2", "pbin"))
        if any(not 0 <= value <= 0xFFFF for value in region) or region[2] < 1 or region[5] < 1:
            raise ValueError("Failed to parse ROI members.")
        found.append((region[0], region[1], region[2], region[3], region[4], region[5]))
    if not found:
        raise ValueError("Invalid ROI count (0).")
    return found


def _metadata(camera: SimCamera, frame: Frame) -> dict[str, Any]:
    profile, parameters = camera.profile, camera.parameters
    since_ns = parameters.timestamps_from_ns
    regions = camera.regions
    return {
        "frame_header": {
            "signature": profile.metadata_signature,
            "version": profile.metadata_version,
            "frameNr": frame.number,
            "roiCount": len(regions),
            "timestampBofPs": max(0, frame.begin_ns - since_ns) * 1000,
            "timestampEofPs": max(0, frame.end_ns - since_ns) * 1000,
            "exposureTimePs": round(frame.exposure_s * 1e12),
            "bitDepth": int(parameters.attribute(Param.BIT_DEPTH, Attr.CURRENT)),
            "colorMask": 0,
            "flags": _ROI_TIMESTAMPS,
            "extendedMdSize": 0,
            "imageFormat": _MONO16,
            "imageCompression": 0,
        },
        "roi_headers": [_roi_header(number, region, frame, since_ns) for number, region in enumerate(regions, start=1)],
    }


def _roi_header(number: int, region: Region, frame: Frame, since_ns: int) -> dict[str, Any]:
    return {
        "roiNr": number,
        "timestampBOR": max(0, frame.begin_ns - since_ns) // 10_000 & 0xFFFFFFFF,
        "timestampEOR": max(0, frame.end_ns - since_ns) // 10_000 & 0xFFFFFFFF,
        "roi": dict(zip(("s1", "s2", "sbin", "p1", "p2", "pbin"), region, strict=True)),
        "flags": 0,
        "extendedMdSize": 0,
        "roiDataSize": frame.pixels[number - 1].nbytes,
    }
