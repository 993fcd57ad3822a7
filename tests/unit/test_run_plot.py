"""The picture of a run where it has a gap, or nothing but where an axis was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import duodaq
from duodaq.model import Scalar
from duodaq.schema import scalar_batch, stage_batch
from duodaq.storage.reading import Run
from duodaq.testing import growing_run, knife_edge, record_run

T0 = 1_780_000_000_000_000_000
SECOND = 1_000_000_000


def powers(*times_s: float) -> pa.RecordBatch:
    rows = [Scalar("meter", "power", "W", T0 + int(t * SECOND), n, 20.0 + n, "v2") for n, t in enumerate(times_s)]
    return scalar_batch(rows)


def axis(name: str, *positions: float, first: int = 0) -> pa.RecordBatch:
    count = len(positions)
    return stage_batch(
        instrument="stage",
        channel=name,
        t_ns=[T0 + (first + n) * SECOND for n in range(count)],
        sequence=[*range(count)],
        axis=[name] * count,
        position=[*positions],
        velocity=[7.0] * count,
        state=["idle"] * count,
        unit=["mm"] * count,
    )


def recorded(path: Path, *batches: pa.RecordBatch) -> Run:
    return duodaq.open_run(record_run(path / "run", batches))


def pieces(axes: Any) -> list[list[float]]:
    """The values of each piece of a curve that is drawn in one stroke."""
    values = axes.lines[0].get_ydata()
    cuts = np.flatnonzero(np.isnan(values))
    return [part[~np.isnan(part)].tolist() for part in np.split(values, cuts)]


def test_a_curve_is_not_drawn_across_an_outage(tmp_path: Path) -> None:
    (axes,) = recorded(tmp_path, powers(*range(5), *range(38, 42))).plot().axes
    assert pieces(axes) == [[20, 21, 22, 23, 24], [25, 26, 27, 28]]
    assert str(axes.lines[0].get_xdata()[4]) < str(axes.lines[0].get_xdata()[6])


@pytest.mark.parametrize(
    "times_s",
    [
        pytest.param([*range(5), 6, 7, 8], id="a second that is missing"),
        pytest.param([0, 60, 125, 180, 245], id="one a minute"),
        pytest.param([0, 1, 2, 3, 60, 120, 180, 240, 300, 360], id="one a minute from then on"),
        pytest.param([0, 5], id="two"),
        pytest.param([0], id="one"),
    ],
)
def test_what_comes_slowly_is_no_gap(tmp_path: Path, times_s: list[float]) -> None:
    (axes,) = recorded(tmp_path, powers(*times_s)).plot().axes
    assert pieces(axes) == [[20.0 + n for n in range(len(times_s))]]


def test_a_value_between_two_gaps_is_a_dot(tmp_path: Path) -> None:
    (axes,) = recorded(tmp_path, powers(*range(5), 40, *range(80, 85))).plot().axes
    line, dots = axes.lines
    assert pieces(axes) == [[20, 21, 22, 23, 24], [25], [26, 27, 28, 29, 30]]
    assert dots.get_ydata().tolist() == [25]
    assert (dots.get_linestyle(), dots.get_marker(), dots.get_color()) == ("None", "o", line.get_color())


def test_where_an_instrument_was_lost_the_curve_of_it_is_broken_however_slowly_it_is_read(tmp_path: Path) -> None:
    told = [("lost", "acquiring", "error", 80), ("back", "error", "acquiring", 110)]
    for lost in ("meter", "other"):
        with growing_run(tmp_path / lost) as journal:
            journal.write([powers(0, 30, 60, 120, 150)])
            for cause, old, new, t in told:
                journal.note(
                    "state", {"instrument": lost, "old": old, "new": new, "cause": cause, "t_ns": T0 + t * SECOND}
                )
            journal.close({"exit_status": "success"})
    (broken,) = duodaq.open_run(tmp_path / "meter").plot().axes
    assert pieces(broken) == [[20, 21, 22], [23, 24]]
    (whole,) = duodaq.open_run(tmp_path / "other").plot().axes
    assert len(pieces(whole)) == 1


def test_each_gap_of_very_many_values_is_drawn(tmp_path: Path) -> None:
    steps_s = np.full(100_000, 0.01)
    steps_s[[5001, 5007, 70_000]] = 10, 8 * 3600, 30  # the first two within one stretch of what is thinned
    times = np.cumsum(steps_s)
    (axes,) = recorded(tmp_path, powers(*times)).plot().axes
    x, y = axes.lines[0].get_data()
    joined = ~np.isnan(y[1:]) & ~np.isnan(y[:-1])
    assert len(x) < 20_000
    assert np.diff(x.astype(np.int64))[joined].max() < 5 * SECOND


def test_of_an_axis_alone_its_position_is_drawn_over_time(tmp_path: Path) -> None:
    run = recorded(tmp_path, axis("x", 3.0, 3.5, 4.0), axis("y", 1.0, 1.0))
    figure = run.plot()
    labels = [(one.get_xlabel().partition(" ")[0], one.get_ylabel()) for one in figure.axes if one.lines]
    assert labels == [("time", "stage.x (mm)"), ("time", "stage.y (mm)")]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [3.0, 3.5, 4.0]
    assert figure.get_supxlabel() == ""


def test_an_axis_that_is_asked_for_by_name_is_drawn_over_time_or_over_the_other_that_is_named(tmp_path: Path) -> None:
    run = recorded(tmp_path, *knife_edge(), axis("y", 1.0, 2.0, 3.0))
    asked, *_ = run.plot(y=["stage.x"]).axes
    assert (asked.get_xlabel().partition(" ")[0], asked.get_ylabel()) == ("time", "stage.x (mm)")
    assert len(asked.lines[0].get_ydata()) == 21
    over, *_ = run.plot(x="stage.x", y=["stage.y"]).axes
    assert (over.get_xlabel(), over.get_ylabel()) == ("stage.x (mm)", "stage.y (mm)")
    assert set(over.lines[0].get_ydata()[11:]) <= {1.0, 2.0, 3.0}


def test_a_number_that_is_a_position_is_not_drawn_over_itself(tmp_path: Path) -> None:
    rows = [Scalar("stage", "position", "mm", T0 + n * SECOND, n, float(n), "v2") for n in range(4)]
    (panel,) = recorded(tmp_path, scalar_batch(rows)).plot().axes
    assert panel.get_xlabel().startswith("time")
    assert panel.lines[0].get_ydata().tolist() == [0, 1, 2, 3]
