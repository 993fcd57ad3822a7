"""The optical table itself: laser, shutter, beam, knife edge on the stage, what the detectors see, and the truth."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from duodaq.sim.table._motion import Profile, rest
from duodaq.sim.table._optics import Beam, draw_beam, edge_pixel, picture, transmitted

KNIFE_AXIS = 1
LASER_NM = 800.0
"""What the table's laser emits until something tunes it."""
_RESPONSIVITY_V_PER_W = 1000.0
_COUNTS_PER_S = 2.5e5
"""Camera counts per second at the centre of the beam, per mW."""


class Truth(NamedTuple):
    """What the table drew from its seed and nobody is told before they ask."""

    seed: int
    radius_mm: float
    centre_mm: float
    power_w: float
    sigma_relative: float
    sigma_absolute_w: float


class TableState(NamedTuple):
    """How things stand now: for safety tests to read back."""

    laser_on: bool
    laser_power_w: float
    shutter_open: bool
    positions: dict[int, float]
    velocities: dict[int, float]
    moving: dict[int, bool]
    wavelength_nm: float = LASER_NM


class Scene(NamedTuple):
    """What a camera must know about one exposure besides the uncut beam picture."""

    peak_counts_per_s: float
    """Counts per second and unbinned pixel at the beam's centre; 0 with a closed shutter or the laser off."""
    edge_px: float
    """Sensor column (fractional) up to which light passes."""
    seed: int


class Table(Protocol):
    """The optical table as its instruments see it: in this process (`LocalTable`) or another (`TableClient`)."""

    def state(self) -> TableState: ...

    def truth(self) -> Truth: ...

    def set_laser(self, on: bool, power_w: float | None = None) -> None: ...

    def set_wavelength(self, wavelength_nm: float) -> None: ...

    def wavelength_nm(self) -> float: ...

    def set_shutter(self, is_open: bool) -> None: ...

    def set_motion(self, axis: int, profile: Profile) -> None:
        """Register the profile that `axis` follows from now on (CLOCK_MONOTONIC; mm, or degrees for a rotary axis)."""
        ...

    def motion(self, axis: int) -> Profile:
        """The profile that `axis` follows; an axis outlives the power of its controller."""
        ...

    def power_w(self, samples: int = 1) -> float:
        """One reading of the power meter behind the knife edge, in W, with noise; `samples` are averaged."""
        ...

    def photodiode_v(self, samples: int = 1) -> float:
        """One reading of the reference photodiode before the knife edge (behind the shutter), in V, with noise."""
        ...

    def scene(self, sensor_width: int = 2048) -> Scene: ...

    def picture(
        self, shape: tuple[int, int], roi: tuple[int, int, int, int], binning: tuple[int, int] = (1, 1)
    ) -> NDArray[np.float32]:
        """The uncut beam, float32 (rows, columns), 1.0 at the centre of an unbinned one; worth keeping."""
        ...

    def image(
        self,
        shape: tuple[int, int] = (2048, 2048),
        roi: tuple[int, int, int, int] | None = None,
        binning: tuple[int, int] = (1, 1),
        exposure_s: float = 0.02,
        frame_no: int = 0,
    ) -> NDArray[np.uint16]:
        """One noisy exposure, uint16 (rows, columns). `roi` is (x, y, width, height); noise from seed and number."""
        ...

    def tally(self, instrument: str, report: dict[str, Any]) -> None:
        """An instrument deposits its own counts (produced, interleavings, exchanges …)."""
        ...

    def counts(self) -> dict[str, dict[str, Any]]:
        """The counts as last deposited, by instrument."""
        ...

    def close(self) -> None: ...


class LocalTable:
    """The optical table in this process; safe from any thread."""

    def __init__(self, seed: int = 0, *, shutter_open: bool = False) -> None:
        self.seed = seed
        self._beam: Beam = draw_beam(seed)
        self._laser_on = True
        self._wavelength_nm = LASER_NM
        self._power_w = self._beam.power_w
        self._shutter_open = shutter_open
        self._axes: dict[int, Profile] = {axis: rest(0.0) for axis in (1, 2, 3)}
        self._tallies: dict[str, dict[str, Any]] = {}
        self._noise = {kind: np.random.default_rng([seed, number]) for number, kind in enumerate(("power", "diode"), 2)}
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def state(self) -> TableState:
        """How everything stands now."""
        now_s = time.monotonic()
        with self._lock:
            at = {axis: profile.at(now_s) for axis, profile in self._axes.items()}
            return TableState(
                laser_on=self._laser_on,
                laser_power_w=self._power_w,
                shutter_open=self._shutter_open,
                positions={axis: where[0] for axis, where in at.items()},
                velocities={axis: where[1] for axis, where in at.items()},
                moving={axis: profile.moving(now_s) for axis, profile in self._axes.items()},
                wavelength_nm=self._wavelength_nm,
            )

    def truth(self) -> Truth:
        """What was drawn from the seed."""
        beam = self._beam
        return Truth(
            self.seed, beam.radius_mm, beam.centre_mm, beam.power_w, beam.sigma_relative, beam.sigma_absolute_w
        )

    def set_laser(self, on: bool, power_w: float | None = None) -> None:
        """Switch the laser; `power_w` stays as it is if not given."""
        with self._lock:
            self._laser_on = on
            self._power_w = self._power_w if power_w is None else power_w

    def set_wavelength(self, wavelength_nm: float) -> None:
        """Tune the laser."""
        with self._lock:
            self._wavelength_nm = wavelength_nm

    def wavelength_nm(self) -> float:
        """What the laser emits, or would."""
        with self._lock:
            return self._wavelength_nm

    def set_shutter(self, is_open: bool) -> None:
        """Open or close the shutter."""
        with self._lock:
            self._shutter_open = is_open

    def set_motion(self, axis: int, profile: Profile) -> None:
        """Let `axis` follow `profile`."""
        with self._lock:
            self._axes[axis] = profile

    def motion(self, axis: int) -> Profile:
        """The profile that `axis` follows."""
        with self._lock:
            return self._axes.setdefault(axis, rest(0.0))

    def power_w(self, samples: int = 1) -> float:
        """The power behind the knife edge, in W, with noise."""
        beam, now_s = self._beam, time.monotonic()
        with self._lock:
            edge_mm = self._axes[KNIFE_AXIS].at(now_s)[0]
            light = self._light_w() * transmitted(beam, edge_mm)
            relative, absolute = self._noise["power"].standard_normal(2) / samples**0.5
        return float(light * (1.0 + beam.sigma_relative * relative) + beam.sigma_absolute_w * absolute)

    def photodiode_v(self, samples: int = 1) -> float:
        """The reference photodiode, in V, with noise."""
        with self._lock:
            relative, absolute = self._noise["diode"].standard_normal(2) / samples**0.5
            volts = self._light_w() * _RESPONSIVITY_V_PER_W
        return float(volts * (1.0 + 5e-4 * relative) + 2e-6 * absolute)

    def scene(self, sensor_width: int = 2048) -> Scene:
        """What one exposure depends on."""
        now_s = time.monotonic()
        with self._lock:
            edge = edge_pixel(self._beam, sensor_width, self._axes[KNIFE_AXIS].at(now_s)[0])
            return Scene(self._light_w() * 1e3 * _COUNTS_PER_S, edge, self.seed)

    def picture(
        self, shape: tuple[int, int], roi: tuple[int, int, int, int], binning: tuple[int, int] = (1, 1)
    ) -> NDArray[np.float32]:
        """The uncut beam on the sensor."""
        return picture(self._beam, shape, roi, binning)

    def image(
        self,
        shape: tuple[int, int] = (2048, 2048),
        roi: tuple[int, int, int, int] | None = None,
        binning: tuple[int, int] = (1, 1),
        exposure_s: float = 0.02,
        frame_no: int = 0,
    ) -> NDArray[np.uint16]:
        """One noisy exposure."""
        roi = roi or (0, 0, shape[1], shape[0])
        return expose(self.scene(shape[1]), self.picture(shape, roi, binning), roi, binning, exposure_s, frame_no)

    def tally(self, instrument: str, report: dict[str, Any]) -> None:
        """Keep the counts of one instrument."""
        with self._lock:
            self._tallies[instrument] = report

    def counts(self) -> dict[str, dict[str, Any]]:
        """The counts of all instruments, as last deposited."""
        with self._lock:
            return dict(self._tallies)

    def close(self) -> None:
        """Nothing to close here: the promise is kept for tables elsewhere."""

    def _light_w(self) -> float:
        return self._power_w if self._laser_on and self._shutter_open else 0.0


def expose(
    scene: Scene,
    uncut: NDArray[np.float32],
    roi: tuple[int, int, int, int],
    binning: tuple[int, int],
    exposure_s: float,
    frame_no: int,
) -> NDArray[np.uint16]:
    """One camera frame from the scene and the uncut picture: knife edge, dark offset and read noise applied."""
    rng = np.random.default_rng([scene.seed, 4, frame_no])
    columns = np.arange(uncut.shape[1], dtype=np.float32) * binning[0] + roi[0]
    passed: NDArray[np.float32] = np.clip((scene.edge_px - columns) / binning[0], 0.0, 1.0).astype(np.float32)
    light = uncut * (passed * np.float32(scene.peak_counts_per_s * exposure_s))
    noise = rng.standard_normal(uncut.shape, dtype=np.float32) * (np.sqrt(light) * 0.5 + np.float32(1.4))
    return np.clip(light + noise + np.float32(103.6), 0, 65535).astype(np.uint16)
