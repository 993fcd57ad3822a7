"""The parameters of one simulated camera: what each is, may be, and does when it is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from duodaq.sim.pvcam._ids import Access, Attr, Param, ParamType
from duodaq.sim.pvcam._profile import CameraProfile, Speed

__all__ = ["Parameters", "PvcamError"]

_RESOLUTIONS = {"One Millisecond": 0, "One Microsecond": 1, "One Second": 2}
_UNITS_S = {0: 1e-3, 1: 1e-6, 2: 1.0}
_COOLING_TIME_S = 20.0


class PvcamError(Exception):
    """A PVCAM call that failed; the seam turns it into the RuntimeError that PyVCAM raises."""


@dataclass(slots=True)
class _Entry:
    """One parameter: how it is read and set, and its limits (or its enum)."""

    get: Callable[[], Any]
    set: Callable[[Any], None] | None = None
    low: Callable[[], Any] | None = None
    high: Callable[[], Any] | None = None
    default: Any = None
    step: Any = 1
    names: Mapping[str, int] | None = None


class Parameters:
    """State and parameter table of one camera. Not available parameters are simply not in the table."""

    def __init__(self, profile: CameraProfile) -> None:
        self.profile = profile
        self.speed_index = 0
        self.gain_index = 1
        self.metadata = False
        self.exposure_resolution = 0
        self.exposure_time = 0
        self.vtm_time = 0
        self.exposure_mode = next(iter(profile.exposure_modes.values()))
        self.expose_out_mode = next(iter(profile.expose_out_modes.values()))
        self.smart_stream = False
        self.smart_exposures: list[int] = []
        self.timestamps_from_ns = time.monotonic_ns()
        self.readout_time_us = 0.0
        self._values: dict[Param, Any] = {}
        self._setpoint = profile.temp_setpoint
        self._cooling = (profile.temp_setpoint, 0.0)
        self._feature_index, self._parameter_index = 0, 0
        self.reset_features()
        self._table: dict[int, _Entry] = {**self._fixed(), **self._plain(), **self._derived(), **self._processing()}

    @property
    def speed(self) -> Speed:
        """The entry of the speed table in use."""
        return self.profile.speeds[self.speed_index]

    @property
    def gain_name(self) -> str:
        """The gain in use."""
        return list(self.profile.gains)[self.gain_index - 1]

    @property
    def unit_s(self) -> float:
        """Seconds in one unit of exposure time."""
        return _UNITS_S[self.exposure_resolution]

    def available(self, param: int) -> bool:
        """Whether this camera has the parameter."""
        return param in self._table

    def attribute(self, param: int, attr: int) -> Any:
        """One attribute of an available parameter, with the type that PyVCAM returns for it."""
        entry = self._table[param]
        kind = param >> 24 & 0xFF
        if attr == Attr.TYPE:
            return int(ParamType.SMART_STREAM_TYPE_PTR if kind == ParamType.VOID_PTR else kind)
        if attr == Attr.ACCESS:
            return int(Access.READ_WRITE if entry.set else Access.READ_ONLY)
        if attr == Attr.LIVE:
            return param in (Param.TEMP, Param.TEMP_SETPOINT, Param.FAN_SPEED_SETPOINT)
        if attr == Attr.COUNT:
            return self._count(entry, kind)
        if attr == Attr.CURRENT:
            return entry.get()
        return self._limit(entry, kind, attr)

    def assign(self, param: int, value: Any) -> None:
        """Set an available parameter.

        Raises:
            PvcamError: Read only, or a value that the camera does not have.
            TypeError: Not the type that the parameter holds.
        """
        entry = self._table[param]
        kind = param >> 24 & 0xFF
        if kind not in (ParamType.CHAR_PTR, ParamType.VOID_PTR, ParamType.RGN_TYPE):
            value = _whole(value)
        if entry.set is None:
            raise PvcamError("The parameter is read only")
        if entry.names is not None and value not in entry.names.values():
            raise PvcamError("The value is not one of the parameter's enumeration")
        if entry.low is not None and entry.high is not None and not entry.low() <= value <= entry.high():
            raise PvcamError("The value is out of the parameter's range")
        entry.set(value)

    def names(self, param: int) -> dict[str, int]:
        """The items of an available enumeration."""
        names = self._table[param].names
        if names is None:
            raise PvcamError("The parameter is not an enumeration")
        return dict(names)

    def reset_features(self) -> None:
        """Post-processing back to its defaults."""
        self._features = [
            [parameter[3] for parameter in feature.parameters.values()] for feature in self.profile.features
        ]

    def set_modes(self, mode: int) -> None:
        """Exposure mode and expose-out mode from their bitwise OR.

        Raises:
            PvcamError: This camera has no such mode.
        """
        exposure, out = (mode & 0xFF00, mode & 0xFF) if mode & 0xFF00 else (mode & 0xFF, 0)
        if exposure not in self.profile.exposure_modes.values():
            raise PvcamError("Exposure mode is not supported")
        if mode & 0xFF00 and out not in self.profile.expose_out_modes.values():
            raise PvcamError("Expose out mode is not supported")
        self.exposure_mode, self.expose_out_mode = exposure, out

    def _count(self, entry: _Entry, kind: int) -> int:
        if entry.names is not None:
            return len(entry.names)
        if kind == ParamType.CHAR_PTR:
            return len(entry.get()) + 1
        if kind == ParamType.BOOLEAN:
            return 2
        if entry.low is None or entry.high is None:
            return 1
        return int((entry.high() - entry.low()) / entry.step) + 1 if entry.step else 0

    def _limit(self, entry: _Entry, kind: int, attr: int) -> Any:
        if kind == ParamType.CHAR_PTR or kind == ParamType.VOID_PTR:
            return [0] * self.profile.smart_stream_entries if kind == ParamType.VOID_PTR else entry.get()
        if kind == ParamType.BOOLEAN:
            return {Attr.MIN: False, Attr.MAX: entry.set is not None, Attr.DEFAULT: bool(entry.default)}.get(
                Attr(attr), True
            )
        if entry.names is not None:
            values = list(entry.names.values())
            return {Attr.MIN: min(values), Attr.MAX: max(values), Attr.DEFAULT: values[0]}.get(Attr(attr), 0)
        low = entry.low() if entry.low else entry.get()
        high = entry.high() if entry.high else entry.get()
        default = low if entry.default is None else entry.default
        return {Attr.MIN: low, Attr.MAX: high, Attr.DEFAULT: default}.get(Attr(attr), entry.step)

    # The table

    def _fixed(self) -> dict[int, _Entry]:
        profile = self.profile
        fixed: dict[Param, Any] = {
            Param.DD_VERSION: profile.driver_version,
            Param.CAM_FW_VERSION: profile.firmware,
            Param.CHIP_NAME: profile.chip,
            Param.SYSTEM_NAME: profile.model,
            Param.PRODUCT_NAME: profile.model,
            Param.VENDOR_NAME: profile.vendor,
            Param.HEAD_SER_NUM_ALPHA: profile.serial,
            Param.CAMERA_PART_NUMBER: "01-PRIME-BSI-R-M-16-C",
            Param.SER_SIZE: profile.width,
            Param.PAR_SIZE: profile.height,
            Param.PIX_SER_SIZE: profile.pixel_nm,
            Param.PIX_PAR_SIZE: profile.pixel_nm,
            Param.PIX_SER_DIST: profile.pixel_nm,
            Param.PIX_PAR_DIST: profile.pixel_nm,
            Param.FWELL_CAPACITY: profile.full_well_e,
            Param.CLEARING_TIME: 0,
            Param.PRE_TRIGGER_DELAY: 0,
            Param.POST_TRIGGER_DELAY: 0,
            Param.ACTUAL_GAIN: 100,
            Param.READ_NOISE: 110,
            Param.CIRC_BUFFER: True,
            Param.FRAME_BUFFER_SIZE: 0,
        }
        return {int(param): _Entry(lambda value=value: value) for param, value in fixed.items()}

    def _plain(self) -> dict[int, _Entry]:
        """Parameters that keep what they are given."""
        profile = self.profile
        binning = {f"{each}x{each}": each for each in profile.binnings}
        kept: list[tuple[Param, Any, dict[str, int] | Mapping[str, int] | tuple[int, int]]] = [
            (Param.CAM_INTERFACE_TYPE, 0x203, {"USB 3.0": 0x203}),
            (Param.CAM_INTERFACE_MODE, 2, {"Imaging": 2}),
            (Param.COOLING_MODE, 0, {"Normal": 0}),
            (Param.COLOR_MODE, 0, {"None": 0}),
            (Param.PMODE, 0, {"Normal": 0, "Alternate Normal": 4}),
            (Param.IMAGE_FORMAT, 0, {"MONO16": 0}),
            (Param.IMAGE_FORMAT_HOST, 0, {"MONO16": 0}),
            (Param.IMAGE_COMPRESSION, 0, {"None": 0}),
            (Param.IMAGE_COMPRESSION_HOST, 0, {"None": 0}),
            (Param.READOUT_PORT, 0, {profile.port: 0}),
            (Param.FAN_SPEED_SETPOINT, 0, profile.fan_speeds),
            (Param.CLEAR_MODE, next(iter(profile.clear_modes.values())), profile.clear_modes),
            (Param.CENTROIDS_MODE, 0, {"Locate": 0, "Track": 1, "Blob": 2}),
            (Param.BINNING_SER, 1, binning),
            (Param.BINNING_PAR, 1, binning),
            (Param.ADC_OFFSET, round(profile.dark_offset), (0, 1000)),
            (Param.CLEAR_CYCLES, 1, (0, 16)),
            (Param.SMART_STREAM_MODE, 0, (0, 0)),
        ]
        return {int(param): self._kept(param, value, limits) for param, value, limits in kept}

    def _kept(self, param: Param, value: Any, limits: Mapping[str, int] | tuple[int, int]) -> _Entry:
        self._values[param] = value

        def assign(new: Any) -> None:
            self._values[param] = new

        if isinstance(limits, tuple):
            low, high = limits
            return _Entry(lambda: self._values[param], assign, lambda: low, lambda: high, default=value)
        return _Entry(lambda: self._values[param], assign, names=limits, default=value)

    def _derived(self) -> dict[int, _Entry]:
        profile = self.profile
        entries = {
            Param.BIT_DEPTH: _Entry(lambda: self.speed.bit_depth),
            Param.BIT_DEPTH_HOST: _Entry(lambda: self.speed.bit_depth),
            Param.PIX_TIME: _Entry(lambda: self.speed.pixel_time_ns),
            Param.SPDTAB_INDEX: self._field("speed_index", 0, len(profile.speeds) - 1),
            Param.GAIN_INDEX: self._field("gain_index", 1, len(profile.gains)),
            Param.GAIN_NAME: _Entry(lambda: self.gain_name),
            Param.EXPOSURE_MODE: _Entry(lambda: self.exposure_mode, names=profile.exposure_modes),
            Param.EXPOSE_OUT_MODE: _Entry(lambda: self.expose_out_mode, names=profile.expose_out_modes),
            Param.EXP_RES: _Entry(lambda: self.exposure_resolution, self._set_resolution, names=_RESOLUTIONS),
            Param.EXP_RES_INDEX: self._field("exposure_resolution", 0, len(_RESOLUTIONS) - 1),
            Param.EXPOSURE_TIME: _Entry(
                lambda: self.exposure_time, None, lambda: 0, lambda: round(profile.exposure_limit_s / self.unit_s)
            ),
            Param.EXP_TIME: self._field("vtm_time", 0, 65535),
            Param.READOUT_TIME: _Entry(lambda: self.readout_time_us),
            Param.ROI_COUNT: _Entry(lambda: 1, None, lambda: 1, lambda: profile.roi_count),
            Param.METADATA_ENABLED: self._switch("metadata"),
            Param.METADATA_RESET_TIMESTAMP: _Entry(lambda: False, self._reset_timestamps),
            Param.SMART_STREAM_MODE_ENABLED: self._switch("smart_stream"),
            Param.SMART_STREAM_EXP_PARAMS: _Entry(lambda: list(self.smart_exposures), self._set_smart_exposures),
            Param.TEMP: _Entry(self._temperature, None, lambda: -32768, lambda: 32767),
            Param.TEMP_SETPOINT: _Entry(
                lambda: self._setpoint,
                self._set_setpoint,
                lambda: profile.temp_limits[0],
                lambda: profile.temp_limits[1],
                default=profile.temp_setpoint,
            ),
        }
        if profile.speed_names:
            entries[Param.SPDTAB_NAME] = _Entry(lambda: self.speed.name)
        return {int(param): entry for param, entry in entries.items()}

    def _field(self, name: str, low: int, high: int) -> _Entry:
        def assign(value: int) -> None:
            setattr(self, name, value)
            if name == "speed_index":
                self.gain_index = 1  # another speed starts at its first gain

        return _Entry(lambda: getattr(self, name), assign, lambda: low, lambda: high)

    def _switch(self, name: str) -> _Entry:
        return _Entry(lambda: getattr(self, name), lambda value: setattr(self, name, bool(value)))

    def _set_resolution(self, value: int) -> None:
        self.exposure_resolution = value

    def _set_smart_exposures(self, value: list[int]) -> None:
        if len(value) > self.profile.smart_stream_entries:
            raise PvcamError("Too many SMART streaming entries")
        self.smart_exposures = list(value)

    def _reset_timestamps(self, value: int) -> None:
        if value:
            self.timestamps_from_ns = time.monotonic_ns()

    def _set_setpoint(self, value: int) -> None:
        self._cooling = (self._temperature() - self.profile.temp_offset, time.monotonic())
        self._setpoint = value

    def _temperature(self) -> int:
        start, since_s = self._cooling
        left = 0.5 ** ((time.monotonic() - since_s) / _COOLING_TIME_S) if since_s else 0.0
        return round(self._setpoint + (start - self._setpoint) * left) + self.profile.temp_offset

    def _processing(self) -> dict[int, _Entry]:
        features = self.profile.features

        def feature() -> Any:
            return features[self._feature_index]

        def parameter() -> tuple[str, tuple[int, int, int, int]]:
            return list(feature().parameters.items())[self._parameter_index]

        def select_feature(value: int) -> None:
            self._feature_index, self._parameter_index = value, 0

        def select_parameter(value: int) -> None:
            self._parameter_index = value

        def assign(value: int) -> None:
            self._features[self._feature_index][self._parameter_index] = value

        entries = {
            Param.PP_INDEX: _Entry(lambda: self._feature_index, select_feature, lambda: 0, lambda: len(features) - 1),
            Param.PP_FEAT_ID: _Entry(lambda: feature().number),
            Param.PP_FEAT_NAME: _Entry(lambda: feature().name),
            Param.PP_PARAM_INDEX: _Entry(
                lambda: self._parameter_index, select_parameter, lambda: 0, lambda: len(feature().parameters) - 1
            ),
            Param.PP_PARAM_ID: _Entry(lambda: parameter()[1][0]),
            Param.PP_PARAM_NAME: _Entry(lambda: parameter()[0]),
            Param.PP_PARAM: _Entry(
                lambda: self._features[self._feature_index][self._parameter_index],
                assign,
                lambda: parameter()[1][1],
                lambda: parameter()[1][2],
            ),
        }
        return {int(param): entry for param, entry in entries.items()}


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        return int(value)
    if not hasattr(value, "__index__"):
        raise TypeError(f"'{type(value).__name__}' object cannot be interpreted as an integer")
    return value.__index__()
