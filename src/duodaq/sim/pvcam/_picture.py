"""Camera frames at the price of a copy: noise is drawn once, and each frame is put together from pieces of it.

A frame is a slice of a tall tile of dark noise, at an offset that its number chooses, plus one of a few shot-noise
pictures of the uncut beam, as far as the knife edge lets it pass. So a moving knife edge costs nothing, and only a
change of light or exposure draws new pictures. Everything comes from the seed: the same frame number of the same scene
is the same frame.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from duodaq.sim.pvcam._profile import CameraProfile
from duodaq.sim.table import Scene, Table

__all__ = ["FrameRenderer", "Region"]

_VARIANTS = 2
_SPARE_ROWS = 257
_KEPT = 4
_GOLDEN = 2654435761
_CEILING = 65_300
"""Light beyond this counts as saturated: dark noise on top of it must not wrap round 16 bits."""

Region = tuple[int, int, int, int, int, int]
"""s1, s2, sbin, p1, p2, pbin as PVCAM orders them; the last pixel belongs to it."""


_tiles: dict[tuple[int, int, int, float, float], NDArray[np.uint16]] = {}
_tiles_lock = threading.Lock()


class FrameRenderer:
    """Draws the pixels of one region of one camera; keeps what it can use again. One thread at a time."""

    def __init__(self, profile: CameraProfile, table: Table, seed: int, region: Region, limit: int) -> None:
        s1, s2, sbin, p1, p2, pbin = region
        self._profile, self._table, self._seed, self._limit = profile, table, seed, limit
        self._binning = (sbin, pbin)
        self._x = s1
        self.shape = ((p2 - p1 + 1) // pbin, (s2 - s1 + 1) // sbin)
        self._uncut = table.picture((profile.height, profile.width), (s1, p1, s2 - s1 + 1, p2 - p1 + 1), self._binning)
        self._dark = self._dark_tile()
        self._lit: OrderedDict[float, list[NDArray[np.uint16]]] = OrderedDict()

    def prepare(self, scene: Scene, exposure_s: float, gain: float) -> None:
        """Draw now what the first frame will need."""
        self._pictures(scene.peak_counts_per_s * exposure_s * gain)

    def draw(self, out: NDArray[np.uint16], scene: Scene, exposure_s: float, gain: float, number: int) -> None:
        """Fill `out` with frame `number` of this scene."""
        height, width = self.shape
        start = (number * _GOLDEN + self._seed) % _SPARE_ROWS
        dark = self._dark[start : start + height, :width]
        peak = scene.peak_counts_per_s * exposure_s * gain
        edge = min(max((scene.edge_px - self._x) / self._binning[0], 0.0), float(width)) if peak > 0 else 0.0
        whole = int(edge)
        if edge > 0:
            lit = self._pictures(peak)[number % _VARIANTS]
            np.add(dark[:, :whole], lit[:, :whole], out=out[:, :whole])
            if whole < width:
                cut = (lit[:, whole] * (edge - whole)).astype(np.uint16)
                np.add(dark[:, whole], cut, out=out[:, whole])
                whole += 1
        np.copyto(out[:, whole:], dark[:, whole:])
        if edge > 0 and self._may_saturate(peak):
            np.putmask(out, out >= min(self._limit, _CEILING), self._limit)

    def _may_saturate(self, peak: float) -> bool:
        return peak * self._brightest * 1.1 + self._profile.dark_offset + 100 > self._limit

    def _pictures(self, peak: float) -> list[NDArray[np.uint16]]:
        kept = self._lit.get(peak)
        if kept is None:
            kept = self._lit[peak] = [self._picture(peak, variant) for variant in range(_VARIANTS)] if peak > 0 else []
            while len(self._lit) > _KEPT:
                self._lit.popitem(last=False)
        return kept

    def _picture(self, peak: float, variant: int) -> NDArray[np.uint16]:
        noise = np.random.default_rng([self._seed, 7, variant]).standard_normal(self.shape, dtype=np.float32)
        light = self._uncut * np.float32(peak)
        noise *= np.sqrt(light * np.float32(self._profile.counts_variance))
        light += noise
        np.clip(light, 0, min(self._limit, _CEILING), out=light)
        return np.rint(light, out=light).astype(np.uint16)

    @property
    def _brightest(self) -> float:
        return float(self._binning[0] * self._binning[1])

    def _dark_tile(self) -> NDArray[np.uint16]:
        profile = self._profile
        key = (self._seed, profile.height, profile.width, profile.dark_offset, profile.read_noise)
        with _tiles_lock:
            tile = _tiles.get(key)
            if tile is None:
                rng = np.random.default_rng([self._seed, 6])
                noise = rng.standard_normal((profile.height + _SPARE_ROWS, profile.width), dtype=np.float32)
                noise *= np.float32(profile.read_noise)
                noise += np.float32(profile.dark_offset)
                _tiles.clear()  # one camera model at a time is kept: a tile is 9 MB
                tile = _tiles[key] = np.rint(noise, out=noise).astype(np.uint16)
        return tile
