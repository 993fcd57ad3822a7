"""What sets one camera model apart: sensor, speed table, modes, features, times. Every figure is here to be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["PROFILES", "CameraProfile", "Feature", "Speed", "profile"]


@dataclass(frozen=True, slots=True)
class Speed:
    """One entry of the speed table."""

    pixel_time_ns: int
    bit_depth: int
    row_time_s: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A post-processing feature: parameters by name, each with id, least, greatest and default value."""

    name: str
    number: int
    parameters: Mapping[str, tuple[int, int, int, int]]


def _despeckle(name: str, number: int, limit: str) -> Feature:
    base = number * 10
    return Feature(
        name,
        number,
        MappingProxyType(
            {"ENABLED": (base, 0, 1, 1), "THRESHOLD": (base + 1, 0, 1000, 200), limit: (base + 2, 0, 4095, 300)}
        ),
    )


_FEATURES = (
    _despeckle("DESPECKLE BRIGHT LOW", 13, "MAX ADU AFFECTED"),
    _despeckle("DESPECKLE BRIGHT HIGH", 8, "MIN ADU AFFECTED"),
    _despeckle("DESPECKLE DARK LOW", 9, "MAX ADU AFFECTED"),
    _despeckle("DESPECKLE DARK HIGH", 15, "MIN ADU AFFECTED"),
    Feature(
        "DENOISING",
        14,
        MappingProxyType(
            {
                "ENABLED": (140, 0, 1, 0),
                "NO OF ITERATIONS": (141, 1, 10, 3),
                "GAIN": (142, 1, 1000, 100),
                "OFFSET": (143, 0, 1000, 100),
                "LAMBDA": (144, 1, 255, 100),
            }
        ),
    ),
    Feature("QUANTVIEW", 3, MappingProxyType({"ENABLED": (30, 0, 1, 0), "E": (31, 0, 1, 0)})),
)


@dataclass(frozen=True, slots=True)
class CameraProfile:
    """One camera model. Times in s, temperatures in hundredths of a degree as PVCAM has them."""

    model: str = "Prime BSI"
    name_pattern: str = "pvcamUSB_{}"
    serial: str = "A19G204008"
    chip: str = "GS2020"
    vendor: str = "Teledyne Photometrics"
    firmware: int = 0x0110
    driver_version: int = 0x03A2
    pvcam_version: int = 0x03A2
    width: int = 2048
    height: int = 2048
    pixel_nm: int = 6500
    full_well_e: int = 45_000
    port: str = "Sensitivity"
    speeds: tuple[Speed, ...] = (Speed(5, 12, 7.75e-6), Speed(10, 16, 11.2e-6))
    gains: Mapping[str, float] = field(  # counts per count of the optical table
        default_factory=lambda: MappingProxyType({"Full well": 0.1, "Balanced": 0.4, "Sensitivity": 1.0})
    )
    exposure_modes: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType(
            {"Internal Trigger": 1792, "Edge Trigger": 2304, "Trigger First": 2048}
        )
    )
    expose_out_modes: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({"First Row": 0, "Any Row": 2, "Rolling Shutter": 3})
    )
    clear_modes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"Auto": 2}))
    fan_speeds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"High": 0, "Medium": 1, "Low": 2}))
    binnings: tuple[int, ...] = (1, 2, 4)
    features: tuple[Feature, ...] = _FEATURES
    speed_names: bool = False  # PARAM_SPDTAB_NAME
    roi_count: int = 15
    exposure_limit_s: float = 10.0
    temp_setpoint: int = -2000
    temp_limits: tuple[int, int] = (-2000, 3000)
    temp_offset: int = 24
    dark_offset: float = 103.6
    read_noise: float = 1.4
    counts_variance: float = 0.25  # shot-noise variance per count of light
    frame_overhead_s: float = 1.3e-3
    sequence_arm_s: float = 0.05
    smart_stream_entries: int = 12
    metadata_signature: str = "PVCM"
    metadata_version: int = 2


_EXPRESS = MappingProxyType(
    {
        "Internal Trigger": 1792,
        "Edge Trigger": 2304,
        "Trigger First": 2048,
        "Level Trigger": 2560,
        "Software Trigger First": 2816,
        "Software Trigger Edge": 3072,
        "Variable Timed": 5,
    }
)

PROFILES: Mapping[str, CameraProfile] = MappingProxyType(
    {
        "prime-bsi": CameraProfile(),
        "prime-bsi-express": CameraProfile(
            model="Prime BSI Express",
            serial="A20F723001",
            speeds=(Speed(5, 11, 5.14e-6, "Speed"), Speed(10, 16, 11.2e-6, "Dynamic range")),
            exposure_modes=_EXPRESS,
            speed_names=True,
        ),
    }
)


def profile(model: str) -> CameraProfile:
    """The profile of a model.

    Raises:
        ValueError: No such model; the message lists those there are.
    """
    found = PROFILES.get(model.lower())
    if found is None:
        raise ValueError(f"pvcam has no model {model!r}; there are: {', '.join(PROFILES)}")
    return found
