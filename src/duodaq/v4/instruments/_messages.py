"""What can be said to the instrument actors. Positions and velocities are in the axis's own unit."""

from __future__ import annotations

from typing import Any

import msgspec


class MoveAbsolute(msgspec.Struct, frozen=True):
    """Move `axis` to `position`; done when it stands there."""

    axis: str
    position: float


class MoveRelative(msgspec.Struct, frozen=True):
    """Move `axis` by `distance`; the reply is where it then stands."""

    axis: str
    distance: float


class Home(msgspec.Struct, frozen=True):
    """Search the home position of `axis`, in the controller's search `mode` if one is given."""

    axis: str
    mode: int | None = None


class ReadPosition(msgspec.Struct, frozen=True):
    """Read where `axis` is."""

    axis: str


class ReadAxisState(msgspec.Struct, frozen=True):
    """Read what `axis` does: its position, velocity and state."""

    axis: str


class ConfigureMotion(msgspec.Struct, frozen=True):
    """Set how `axis` moves, and within which `limits`; what is None stays. Stored, and kept across a restart."""

    axis: str
    velocity: float | None = None
    acceleration: float | None = None
    deceleration: float | None = None
    limits: tuple[float, float] | None = None


class EnableAxis(msgspec.Struct, frozen=True):
    """Switch the motor of `axis` on or off; the reply is what the controller then reports."""

    axis: str
    on: bool = True


class Query(msgspec.Struct, frozen=True):
    """The reply to a SCPI query, as text."""

    command: str


class QueryWithTimeout(msgspec.Struct, frozen=True):
    """The reply to a SCPI query that may take up to `timeout_s`."""

    command: str
    timeout_s: float


class QueryBlock(msgspec.Struct, frozen=True):
    """The payload of the binary block that a SCPI query replies, which may take up to `timeout_s`."""

    command: str
    timeout_s: float | None = None


class Write(msgspec.Struct, frozen=True):
    """Write a SCPI command that has no reply."""

    command: str


class Transact(msgspec.Struct, frozen=True):
    """Write a SCPI command and wait until the instrument has completed it."""

    command: str
    timeout_s: float = 10.0


class ReadError(msgspec.Struct, frozen=True):
    """Empty the error queue; the reply lists its entries, (code, text)."""


class ClearErrors(msgspec.Struct, frozen=True):
    """Empty the error queue and the event registers."""


class Reset(msgspec.Struct, frozen=True):
    """Bring the instrument to its reset state, and wait until it is there."""


class Identify(msgspec.Struct, frozen=True):
    """Who the instrument is."""


class ReadPower(msgspec.Struct, frozen=True):
    """Read the power at the detector; the reply is a PowerReading."""


class SetWavelength(msgspec.Struct, frozen=True):
    """Set the wavelength that a meter corrects for or that a laser emits; the reply is what it accepted."""

    wavelength_nm: float


class SetUnit(msgspec.Struct, frozen=True):
    """Set the unit of readings, W, dB, dBm or REL; the reply is what it accepted."""

    unit: str


class Arm(msgspec.Struct, frozen=True):
    """Permit the shutter to be opened. A stop, a safe state, a restart or the loss of the line takes that back."""


class Disarm(msgspec.Struct, frozen=True):
    """Permit it no more, and close the shutter."""


class OpenShutter(msgspec.Struct, frozen=True):
    """Open the shutter, if it is permitted; done when it has been read back."""


class CloseShutter(msgspec.Struct, frozen=True):
    """Close the shutter; done when it has been read back."""


class MakeSafe(msgspec.Struct, frozen=True):
    """Disarm, and close the shutter; done when that has been read back."""


class WarmUp(msgspec.Struct, frozen=True):
    """Warm up, and wait until it is warm."""


class SwitchOn(msgspec.Struct, frozen=True):
    """Make light behind the shutter, and wait until that is steady."""


class SwitchOff(msgspec.Struct, frozen=True):
    """Make no light any more; what is warm stays warm."""


class ReadLaser(msgspec.Struct, frozen=True):
    """Read what the laser does; the reply is a LaserReading."""


class FeedWatchdog(msgspec.Struct, frozen=True):
    """What an actor tells itself, so that a device hears from it only while its mailbox is served."""


class StartStream(msgspec.Struct, frozen=True):
    """Start the camera's stream; what is None stays as it was set before."""

    roi: Any = None
    binning: Any = None
    exposure_s: float | None = None
    mode: str | int | None = None
    gain: int | None = None


class StopStream(msgspec.Struct, frozen=True):
    """End the camera's stream."""


class ConfigureRoi(msgspec.Struct, frozen=True):
    """Set the region of interest, in sensor pixels; None is the whole sensor."""

    roi: Any = None


class SetTiming(msgspec.Struct, frozen=True):
    """Set the exposure time and, if given, the exposure mode."""

    exposure_s: float
    mode: str | int | None = None


class SetGain(msgspec.Struct, frozen=True):
    """Set the gain index."""

    gain: int


class SetBinning(msgspec.Struct, frozen=True):
    """Set the binning, one number or (x, y)."""

    binning: Any


class GetCapabilities(msgspec.Struct, frozen=True):
    """What the instrument can do, as plain values."""


class IsStreaming(msgspec.Struct, frozen=True):
    """Whether a stream runs."""
