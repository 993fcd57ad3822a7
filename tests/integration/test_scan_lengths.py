"""A scan over a spectrum that is not everywhere as long: its points are all there, as arrays too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import duodaq

pytest.importorskip("bluesky")

LAB = """\
[runtimes.v2]
worker = "inline"

[instruments.rail]
runtime = "v2"
driver = "./rail.py:Rail"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
options = { acquire = false }
poll."x.position" = { call = "place", unit = "mm" }
poll.peaks = { call = "peaks", unit = "V" }

[flight_recorder]
keep = 0
"""

RAIL = """\
class Rail:
    at = 0.0

    def place(self):
        return self.at

    def move(self, axis, position):
        self.at = position

    def peaks(self):
        return [self.at, float("nan"), 7.0][: int(self.at)]
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")
def test_arrays_of_different_lengths_are_filled_up_with_nan(tmp_path: Path) -> None:
    (tmp_path / "rail.py").write_text(RAIL)
    (tmp_path / "lab.toml").write_text(LAB)
    with duodaq.open(str(tmp_path / "lab.toml")) as lab:
        run = lab.scan(lab.rail.x, [1.0, 3.0, 2.0], lab.rail, progress=False)
    nan = np.nan
    expected = np.array([[1.0, nan, nan], [3.0, nan, 7.0], [2.0, nan, nan]])
    (kept,) = duodaq.open_run(str(run.directory)).scans
    for scan in (run, kept):
        assert [len(one) for one in scan.to_arrow()["peaks"].to_pylist()] == [1, 3, 2]
        points = scan.to_xarray()
        np.testing.assert_array_equal(points["peaks"].values, expected)
        np.testing.assert_array_equal(scan["peaks"], expected)
        assert points["peaks"].attrs["units"] == "V"
        assert points["x_position"].values.tolist() == [1.0, 3.0, 2.0]
