from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class KnifeEdge(NamedTuple):
    """A Gaussian beam as a knife edge finds it; lengths in mm, power in W, `width_error_mm` one standard deviation."""

    width_mm: float
    width_error_mm: float
    centre_mm: float
    power_w: float


def fit_knife_edge(positions_mm: Values, powers_w: Values) -> KnifeEdge:
    """The beam radius w (1/e² of intensity) from the power that passes a knife edge at each position.

    ``P(x) = P_dark + P/2 · (1 ± erf(√2 (x − x0) / w))``, with the sign of the data.
    """
    optimize: Any = importlib.import_module("scipy.optimize")  # untyped, and wanted only here
    special: Any = importlib.import_module("scipy.special")

    def model(x: Values, dark: float, power: float, centre: float, width: float) -> Values:
        return dark + power / 2 * (1 + special.erf(np.sqrt(2) * (x - centre) / width))

    order = np.argsort(positions_mm)
    x, p = positions_mm[order], powers_w[order]
    scale = float(np.ptp(p)) or 1.0
    rising = p[-1] > p[0]
    middle = float(x[np.argmin(np.abs(p - (p.max() + p.min()) / 2))])
    first = (float(p.min()) / scale, 1.0 if rising else -1.0, middle, float(np.ptp(x)) / 6)
    if not rising:
        first = (float(p.max()) / scale, *first[1:])
    found, covariance = optimize.curve_fit(model, x, p / scale, p0=first, maxfev=20000)
    error = float(np.sqrt(covariance[3, 3]))
    return KnifeEdge(abs(float(found[3])), error, float(found[2]), abs(float(found[1])) * scale)
