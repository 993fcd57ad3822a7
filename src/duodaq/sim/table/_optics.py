"""The light on the table, as pure functions of the beam and of where things stand."""

from __future__ import annotations

from math import erf, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PIXEL_MM = 0.0065
"""Pixel pitch of the camera (Prime BSI, 6.5 µm)."""


class Beam(NamedTuple):
    """What only the table knows until it is asked for the truth. Lengths in mm, power in W."""

    radius_mm: float
    centre_mm: float
    power_w: float
    camera_x_mm: float
    camera_y_mm: float
    sigma_relative: float
    sigma_absolute_w: float


def draw_beam(seed: int) -> Beam:
    """A Gaussian TEM00 beam drawn from the seed: radius (1/e²) 0.8 to 1.6 mm, centred 4.5 to 5.5 mm along the stage."""
    rng = np.random.default_rng([seed, 1])
    return Beam(
        radius_mm=float(rng.uniform(0.8, 1.6)),
        centre_mm=float(rng.uniform(4.5, 5.5)),
        power_w=float(rng.uniform(1.5e-3, 2.5e-3)),
        camera_x_mm=float(rng.uniform(-0.8, 0.8)),
        camera_y_mm=float(rng.uniform(-0.8, 0.8)),
        sigma_relative=0.002,
        sigma_absolute_w=1e-6,
    )


def transmitted(beam: Beam, edge_mm: float) -> float:
    """The fraction of the beam that passes a knife edge at `edge_mm` (more with growing position)."""
    return 0.5 * (1.0 + erf(sqrt(2.0) * (edge_mm - beam.centre_mm) / beam.radius_mm))


def picture(
    beam: Beam, shape: tuple[int, int], roi: tuple[int, int, int, int], binning: tuple[int, int]
) -> NDArray[np.float32]:
    """The uncut beam on the sensor, 1.0 at its centre for one unbinned pixel.

    Args:
        shape: Sensor (height, width) in pixels; the beam sits near its middle.
        roi: (x, y, width, height) in sensor pixels.
        binning: (x, y); binned pixels add up.

    Returns:
        float32, (height // binning y, width // binning x).
    """
    x, y, width, height = roi
    bin_x, bin_y = binning
    columns = _profile(x, width // bin_x, bin_x, shape[1] / 2 + beam.camera_x_mm / PIXEL_MM, beam.radius_mm)
    rows = _profile(y, height // bin_y, bin_y, shape[0] / 2 + beam.camera_y_mm / PIXEL_MM, beam.radius_mm)
    return np.outer(rows, columns).astype(np.float32)


def edge_pixel(beam: Beam, width: int, edge_mm: float) -> float:
    """The sensor column up to which the knife edge lets light pass."""
    return width / 2 + (beam.camera_x_mm + edge_mm - beam.centre_mm) / PIXEL_MM


def _profile(first: int, count: int, step: int, centre: float, radius_mm: float) -> NDArray[np.float64]:
    pixels = np.arange(first, first + count * step) + 0.5
    light = np.exp(-2.0 * ((pixels - centre) * PIXEL_MM / radius_mm) ** 2)
    return light.reshape(count, step).sum(axis=1)
