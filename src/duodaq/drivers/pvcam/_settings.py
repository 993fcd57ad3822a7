"""How a camera is to take pictures, as values; and the count of those that were lost."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from duodaq.errors import OutOfRangeError

__all__ = ["CameraSettings", "Frame", "FrameCount", "Roi"]


class Roi(msgspec.Struct, frozen=True):
    """A region of interest in sensor pixels, before binning."""

    x: int
    y: int
    width: int
    height: int


class CameraSettings(msgspec.Struct, frozen=True):
    """What is applied before each acquisition; None leaves what the camera has.

    `mode` is the exposure mode by the camera's name or number (1792 is the internal trigger).
    """

    roi: Roi | None = None
    binning: tuple[int, int] = (1, 1)
    exposure_s: float = 0.02
    mode: str | int | None = None
    gain: int | None = None
    speed: int | None = None

    def changed(self, **options: Any) -> CameraSettings:
        """These settings with `options` in place; `roi` as a Roi, a mapping or (x, y, width, height).

        Raises:
            OutOfRangeError: An option is unknown, or its value can never be right. Nothing was sent.
        """
        unknown = set(options) - set(self.__struct_fields__)
        if unknown:
            raise OutOfRangeError(f"a camera has no setting {', '.join(sorted(unknown))}", left="nothing was sent")
        if "roi" in options:
            options["roi"] = _roi(options["roi"])
        if "binning" in options:
            options["binning"] = _binning(options["binning"])
        settings = msgspec.structs.replace(self, **options)
        if not settings.exposure_s >= 0:
            raise OutOfRangeError(f"an exposure of {settings.exposure_s} s cannot be", left="nothing was sent")
        return settings


class Frame(msgspec.Struct, frozen=True):
    """One picture: `pixels` (height, width), the camera's own `number` from 1, `t_ns` when it reached the host (UTC).

    `lost` frames went missing since the one before. `stamps_ps` are the camera's begin and end of exposure.
    """

    number: int
    pixels: npt.NDArray[np.unsignedinteger[Any]]
    t_ns: int
    settings: CameraSettings
    roi: Roi
    lost: int = 0
    stamps_ps: tuple[int, int] | None = None

    @property
    def pixel_format(self) -> str:
        """``Mono8`` or ``Mono16``."""
        return f"Mono{8 * self.pixels.dtype.itemsize}"


class FrameCount:
    """Counts an acquisition's frames and the gaps in their numbers."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self._last = 0

    def restart(self) -> None:
        """A new acquisition begins: the camera numbers from 1 again."""
        self._last = 0

    def take(self, number: int) -> int:
        """Count frame `number`; how many are missing between it and the one before."""
        missing = max(0, number - self._last - 1)
        self._last = number
        self.received += 1
        self.lost += missing
        return missing


def _roi(value: Any) -> Roi | None:
    if value is None or isinstance(value, Roi):
        return value
    try:
        roi = msgspec.convert(value, Roi) if isinstance(value, dict) else Roi(*(int(part) for part in value))
    except (TypeError, ValueError) as error:
        raise OutOfRangeError(f"a region of interest is x, y, width, height, not {value!r}") from error
    if min(roi.x, roi.y) < 0 or min(roi.width, roi.height) < 1:
        raise OutOfRangeError(f"{roi} lies outside any sensor", left="nothing was sent")
    return roi


def _binning(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(part, int) or part < 1 for part in pair):
        raise OutOfRangeError(f"a binning is one or two whole numbers from 1, not {value!r}", left="nothing was sent")
    return pair[0], pair[1]
