"""A run that is opened again: what it is, what is said of it, and its rows for every program."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray as xr
from rich.console import Console

import duodaq
from duodaq.errors import ConfigError, SchemaMismatchError, StorageError
from duodaq.model import Scalar, Spectrum, Vector
from duodaq.schema import scalar_batch, spectrum_batch, stage_batch, vector_batch
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.reading import Run
from duodaq.storage.reading._index import RowsIndex
from duodaq.storage.reading._moments import utc
from duodaq.testing import growing_run, knife_edge, record_run

pytestmark = pytest.mark.usefixtures("polars_is_awake")
T0 = 1_780_000_000_000_000_000
STEP = 100_000_000


@pytest.fixture(scope="module")
def knife(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "knife"
    return record_run(path, knife_edge(), provenance={"lab": "bench", "instruments": {"dmm": {"nplc": 1}}})


@pytest.fixture
def run(knife: Path) -> Run:
    return duodaq.open_run(knife)


def powers(first: int, count: int, unit: str = "W", **facts: object) -> pa.RecordBatch:
    rows = range(first, first + count)
    told = facts or None
    return scalar_batch([Scalar("meter", "power", unit, T0 + n * STEP, n, float(n), "v2", told) for n in rows])


def test_a_run_says_what_it_is_without_reading_any_rows(run: Run) -> None:
    assert run.number >= 1
    assert run.uid == json.loads((run.path / "run.json").read_text())["uid"]
    assert run.state == "finished"
    assert run.provenance["instruments"]["dmm"]["nplc"] == 1
    assert run.start is not None
    assert run.stop is not None
    assert run.start.tzinfo is dt.UTC
    assert "pyarrow" in run.versions
    assert [*run.streams] == ["stage.x", "meter.power", "camera.frames"]
    assert "meter.power" in run
    assert len(run) == 3


def test_opening_reads_nothing_but_what_the_run_is(knife: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    duodaq.open_run(knife)
    assert read == ["run.json"]


def test_how_much_there_is_of_a_segment_that_was_ended_is_known_without_its_rows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [(stream.name, len(stream), stream.start, stream.stop) for stream in run]
    assert all(stop is not None for *_, stop in wanted)
    tables = [stream.to_arrow().column("timestamp") for stream in run]

    def unread(self: RowsIndex, number: int) -> bytes:
        raise AssertionError("a batch was read")

    monkeypatch.setattr(RowsIndex, "_sound_bytes", unread)
    found = [(stream.name, len(stream), stream.start, stream.stop) for stream in duodaq.open_run(run.path)]
    assert found == wanted
    for (_, _, start, stop), times in zip(found, tables, strict=True):
        assert (utc(times[0].value), utc(times[-1].value)) == (start, stop)


def test_a_place_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no journal"):
        duodaq.open_run(tmp_path)
    with pytest.raises(StorageError, match="cannot read"):
        duodaq.open_run(tmp_path / "nowhere")


def test_a_stream_that_is_not_there_is_named_with_those_that_are(run: Run) -> None:
    with pytest.raises(KeyError, match=r"power2.*stage\.x, meter\.power, camera\.frames"):
        run["meter.power2"]


def test_a_stream_knows_its_length_its_times_and_its_units(run: Run) -> None:
    power = run["meter.power"]
    assert len(power) == 21
    assert power.start == dt.datetime.fromtimestamp((T0 + STEP // 4) / 1e9, dt.UTC)
    assert power.stop == dt.datetime.fromtimestamp((T0 + 20 * STEP + STEP // 4) / 1e9, dt.UTC)
    assert power.units == {"value": "W"}
    assert run["stage.x"].units == {"position": "mm", "velocity": "mm/s"}
    assert run["camera.frames"].units == {"exposure_s": "s"}
    assert power.gaps() == []


def test_arrow_has_every_column_and_the_units_in_its_fields(run: Run) -> None:
    table = run["meter.power"].to_arrow()
    assert table.column_names == ["timestamp", "sequence", "instrument", "channel", "value", "unit", "metadata"]
    assert table.schema.field("value").metadata == {b"unit": b"W"}
    assert table["sequence"].to_pylist() == list(range(21))
    assert run["meter.power"].to_arrow(["value", "sequence"]).column_names == ["value", "sequence"]


def test_pandas_is_over_time_with_units_beside(run: Run) -> None:
    frame = run["meter.power"].to_pandas()
    assert frame.index[0] == pd.Timestamp(T0 + STEP // 4)
    assert frame.attrs["units"] == {"value": "W"}
    assert frame["value"].is_monotonic_decreasing


def test_polars_is_lazy_and_filters_while_it_reads(run: Run) -> None:
    lazy = run["meter.power"].to_polars()
    assert isinstance(lazy, pl.LazyFrame)
    found = lazy.filter(pl.col("sequence") >= 18).select("sequence", "unit").collect()
    assert found["sequence"].to_list() == [18, 19, 20]
    assert found["unit"].to_list() == ["W"] * 3
    assert lazy.head(2).collect().height == 2
    assert lazy.collect().height == 21


def test_duckdb_asks_as_often_as_it_likes(run: Run) -> None:
    relation = run["meter.power"].duckdb()
    assert relation.aggregate("count(*)").fetchall() == relation.aggregate("count(*)").fetchall() == [(21,)]
    joined = run.duckdb().sql(
        'SELECT position, value FROM "meter.power" ASOF JOIN "stage.x" USING (timestamp) ORDER BY position'
    )
    assert joined.fetchall()[0] == (0.5, pytest.approx(1e-3, rel=1e-3))
    mine = duckdb.connect()
    run["stage.x"].duckdb(mine)
    assert mine.sql('SELECT max(position) FROM "stage.x"').fetchall() == [(3.5,)]


def test_a_stream_is_an_arrow_stream_for_whoever_takes_one(run: Run) -> None:
    stream = run["meter.power"]
    assert pa.table(stream).num_rows == 21
    assert pa.RecordBatchReader.from_stream(stream).read_all()["sequence"].to_pylist() == list(range(21))
    assert pl.DataFrame(stream).height == 21
    assert stream.scanner(columns=["value"], filter=pc.field("sequence") < 5).to_table().num_rows == 5


def test_xarray_names_channels_as_a_scan_does_with_units_in_attrs(run: Run) -> None:
    data = run["meter.power"].to_xarray()
    assert data["power"].attrs == {"units": "W"}
    assert data["power"].dims == ("time",)
    assert data["time"].values[0] == np.datetime64(T0 + STEP // 4, "ns")
    assert data.attrs["uid"] == run.uid
    stage = run["stage.x"].to_xarray()
    assert stage["stage_x"].attrs == {"units": "mm"}
    assert stage["stage_x_velocity"].attrs == {"units": "mm/s"}
    tree = run.to_xarray()
    assert isinstance(tree, xr.DataTree)
    assert {*tree.children} == {"stage.x", "meter.power", "camera.frames"}


def test_other_channels_are_put_beside_an_axis(run: Run) -> None:
    knife = run.to_xarray(align="stage.x", take="last")
    assert isinstance(knife, xr.Dataset)
    assert knife["power"].attrs == {"units": "W"}
    assert knife["stage_x"].values[0] == 0.5
    assert knife["power"].values[0] == pytest.approx(1e-3, rel=1e-3)
    table = run.to_arrow("meter.power", align="stage.x", take="next")
    assert table["power"].null_count == 0
    assert np.isnan(table["power"][20].as_py())  # the meter was not read any more once the axis had last been read
    assert table["power"][0].as_py() == run["meter.power"].to_arrow()["value"][1].as_py()
    assert table.schema.field("power").metadata == {b"unit": b"W"}
    nearest = run.to_pandas(align="stage.x", take="nearest")
    assert nearest["power"].iloc[0] == run["meter.power"].to_arrow()["value"][0].as_py()
    assert nearest.attrs["units"]["stage_x"] == "mm"


def test_channels_of_one_name_get_their_instruments_in_front_as_in_a_scan(tmp_path: Path) -> None:
    other = scalar_batch([Scalar("other", "power", "W", T0 + STEP, 0, 7.0, "v2")])
    run = duodaq.open_run(record_run(tmp_path / "run", [*knife_edge(3), other]))
    wide = run.to_arrow(align="stage.x", take="nearest")
    assert {"meter_power", "other_power"} <= {*wide.column_names}


def test_all_numbers_are_one_long_table(run: Run) -> None:
    assert run.to_arrow("meter.power").num_rows == 21
    frame = run.to_pandas()
    assert [*frame.columns] == ["timestamp", "sequence", "instrument", "channel", "value", "unit"]
    assert run.to_polars().collect().height == len(frame) == 3 * 21


def test_an_axis_gives_its_positions_and_its_velocities_as_numbers(run: Run) -> None:
    stage = run["stage.x"].to_arrow()
    for told in (run.to_pandas(), run.to_polars().collect().to_pandas()):
        axis = told[told["instrument"] == "stage"]
        for channel, column, unit in (("x", "position", "mm"), ("x_velocity", "velocity", "mm/s")):
            rows = axis[axis["channel"] == channel]
            assert rows["value"].tolist() == stage[column].to_pylist()
            assert {*rows["unit"]} == {unit}
            assert rows["sequence"].tolist() == stage["sequence"].to_pylist()


def test_a_velocity_that_was_not_told_is_no_row(tmp_path: Path) -> None:
    facts = {"instrument": "stage", "channel": "x", "axis": ["x"] * 2, "state": ["idle"] * 2, "unit": ["mm"] * 2}
    batch = stage_batch(**facts, t_ns=[T0, T0 + 1], sequence=[0, 1], position=[1.0, 2.0], velocity=[None, 0.5])
    run = duodaq.open_run(record_run(tmp_path / "run", [batch]))
    assert run.to_arrow()["value"].to_pylist() == [1.0, 2.0, 0.5]
    assert run.to_polars().collect()["value"].to_list() == [1.0, 2.0, 0.5]


def test_another_way_to_take_rows_is_refused_with_those_that_there_are(run: Run) -> None:
    wrong: Any = "bogus"
    for ask in (run.to_xarray, run.to_arrow, run.to_pandas, run.to_polars):
        with pytest.raises(ValueError, match="last, next, nearest"):
            ask(align="stage.x", take=wrong)


def test_a_run_is_opened_by_what_the_command_line_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="there is no run 1"):
        duodaq.open_run(1)
    paths = [record_run(tmp_path / "runs" / name, knife_edge(1)) for name in ("first", "second")]
    assert duodaq.open_run(1).path.resolve() == paths[0]
    for name in (2, "2", "last", "second"):
        assert duodaq.open_run(name).path.resolve() == paths[1]
    with pytest.raises(StorageError, match="there is no run 7, neither as a directory nor in runs"):
        duodaq.open_run(7)
    with pytest.raises(StorageError, match="there is no run nonsense"):
        duodaq.open_run("nonsense")


def test_a_window_of_time_takes_only_its_rows(tmp_path: Path) -> None:
    run = duodaq.open_run(record_run(tmp_path / "run", [powers(n, 1) for n in range(50)]))
    power = run["meter.power"]
    assert power.between(T0 + 10 * STEP, T0 + 12 * STEP).to_arrow()["sequence"].to_pylist() == [10, 11]
    start = np.datetime64(T0 + 48 * STEP, "ns")
    assert power.between(start).to_arrow()["sequence"].to_pylist() == [48, 49]
    assert len(power.between(stop=dt.datetime.fromtimestamp(T0 / 1e9, dt.UTC))) == 0
    moment = dt.datetime.fromtimestamp((T0 + 5 * STEP) / 1e9, dt.UTC).isoformat()
    assert len(run.between(moment)["meter.power"].between(stop=T0 + 8 * STEP)) == 3
    assert len(run.between(moment).to_arrow()) == 45


def test_a_window_cuts_within_a_batch(tmp_path: Path) -> None:
    run = duodaq.open_run(record_run(tmp_path / "run", [powers(n, 10) for n in range(0, 50, 10)]))
    rows = run["meter.power"].between(T0 + 13 * STEP, T0 + 32 * STEP).to_arrow()
    assert rows["sequence"].to_pylist() == list(range(13, 32))


def test_rows_without_times_are_in_no_window(tmp_path: Path) -> None:
    facts = {b"duodaq.stream": b"mine.own", b"duodaq.instrument": b"mine"}
    batch = pa.record_batch([pa.array([1.0])], schema=pa.schema([("level", pa.float64())], facts))
    stream = duodaq.open_run(record_run(tmp_path / "run", [batch]))["mine.own"]
    assert (len(stream), stream.start, stream.stop) == (1, None, None)
    assert stream.to_xarray()["level"].dims == ("row",)
    with pytest.raises(SchemaMismatchError, match="without a timestamp"):
        stream.between(T0).to_arrow()


def test_what_rows_share_is_a_column_of_theirs(tmp_path: Path) -> None:
    batches = [powers(0, 2), powers(2, 2, saturated=True), powers(4, 1)]
    table = duodaq.open_run(record_run(tmp_path / "run", batches))["meter.power"].to_arrow()
    assert table["metadata"].to_pylist() == [None, None, '{"saturated":true}', '{"saturated":true}', None]


def test_a_unit_that_changes_is_in_the_rows_and_nowhere_else(tmp_path: Path) -> None:
    stream = duodaq.open_run(record_run(tmp_path / "run", [powers(0, 2), powers(2, 2, "dBm")]))["meter.power"]
    table = stream.to_arrow()
    assert table["unit"].to_pylist() == ["W", "W", "dBm", "dBm"]
    assert table.schema.field("value").metadata is None
    data = stream.to_xarray()
    assert data["power"].attrs == {}
    assert data["unit"].values.tolist() == ["W", "W", "dBm", "dBm"]


def test_spectra_over_one_axis_have_it_as_a_coordinate_and_others_beside(tmp_path: Path) -> None:
    axis = np.array([632.0, 633.0, 634.0])

    def spectra(shift: float) -> pa.RecordBatch:
        rows = [Spectrum("osa", "trace", "dBm", T0 + n, n, axis * n, axis + n * shift, "nm") for n in range(2)]
        return spectrum_batch(rows)

    same = duodaq.open_run(record_run(tmp_path / "same", [spectra(0)]))["osa.trace"].to_xarray()
    assert same["trace"].dims == ("time", "axis")
    assert same["axis"].values.tolist() == axis.tolist()
    assert same["axis"].attrs == {"units": "nm"}
    moved = duodaq.open_run(record_run(tmp_path / "moved", [spectra(1)]))["osa.trace"].to_xarray()
    assert moved["axis"].dims == ("time", "axis_index")


def test_vectors_of_several_lengths_are_filled_up_and_their_lengths_told(tmp_path: Path) -> None:
    rows = [Vector("scope", "wave", "V", T0 + n, n, np.arange(3.0 + n)) for n in range(3)]
    data = duodaq.open_run(record_run(tmp_path / "run", [vector_batch(rows)]))["scope.wave"].to_xarray()
    assert data["wave"].shape == (3, 5)
    assert data["wave_length"].values.tolist() == [3, 4, 5]
    assert np.isnan(data["wave"].values[0, 3:]).all()


def test_columns_that_change_come_together_where_they_can(tmp_path: Path) -> None:
    def own(column: pa.Array, name: str) -> pa.RecordBatch:
        facts = {b"duodaq.stream": b"mine.own", b"duodaq.instrument": b"mine"}
        times = pa.array([T0], pa.timestamp("ns"))
        return pa.record_batch(
            [times, column], schema=pa.schema([("timestamp", times.type), (name, column.type)], facts)
        )

    fitting = [own(pa.array([1], pa.int32()), "a"), own(pa.array([2], pa.int64()), "a"), own(pa.array([0.5]), "b")]
    stream = duodaq.open_run(record_run(tmp_path / "fitting", fitting))["mine.own"]
    assert stream.to_arrow()["a"].to_pylist() == [1, 2, None]
    assert stream.to_arrow()["b"].to_pylist() == [None, None, 0.5]
    assert len(stream.parts) == 3
    against = [own(pa.array([1]), "a"), own(pa.array(["one"]), "a")]
    stream = duodaq.open_run(record_run(tmp_path / "against", against))["mine.own"]
    with pytest.raises(SchemaMismatchError, match="changed its columns"):
        stream.to_arrow()
    assert [next(part.tables())["a"].to_pylist() for part in stream.parts] == [[1], ["one"]]


def test_a_run_without_streams_is_a_run(tmp_path: Path) -> None:
    run = duodaq.open_run(record_run(tmp_path / "run", []))
    assert len(run) == 0
    assert run.to_arrow().num_rows == 0
    assert run.to_polars().collect().height == 0
    assert len(run.to_xarray().children) == 0
    assert run.plot().axes


def test_a_growing_run_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        run = duodaq.open_run(tmp_path / "run")
        assert len(run) == 0
        assert run.state == "recording"
        for n in range(5):
            journal.write([powers(n, 1)])
            assert len(run["meter.power"]) == n + 1
            assert run["meter.power"].to_arrow()["sequence"].to_pylist() == list(range(n + 1))
        relation = run["meter.power"].duckdb()
        journal.write([powers(5, 4)])
        assert relation.aggregate("count(*)").fetchall() == [(9,)]
        assert run.stop is None
    assert run.state == "unfinished"
    assert len(run["meter.power"]) == 9


def test_labels_are_given_and_changed_one_by_one(tmp_path: Path) -> None:
    run = duodaq.open_run(record_run(tmp_path / "run", [powers(0, 1)]))
    assert run.labels.sample == ""
    run.label(sample="knife 3", tags=["good", "first", "good"])
    run.label(note="the beam drifted")
    again = duodaq.open_run(run.path)
    assert (again.labels.sample, again.labels.note, again.labels.tags) == (
        "knife 3",
        "the beam drifted",
        ("good", "first"),
    )
    assert dt.datetime.fromisoformat(again.labels.edited).tzinfo is not None
    assert again["meter.power"].to_xarray().attrs["sample"] == "knife 3"
    assert not [name for name in os.listdir(run.path) if name.startswith(".")]
    again.label(sample="")
    assert again.labels.sample == ""


def test_labels_that_cannot_be_written_stay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = duodaq.open_run(record_run(tmp_path / "run", []))
    run.label(sample="one")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="as they were"):
        run.label(sample="two")
    assert run.labels.sample == "one"


def test_a_page_that_is_damaged_is_told_by_the_event_log(knife: Path, tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", [powers(0, 3)])
    uid = duodaq.open_run(path).uid
    (path / "run.json").write_bytes(b"{")
    assert duodaq.open_run(path).uid == uid


def test_a_run_shows_itself_to_people(run: Run) -> None:
    assert "3 streams, finished" in repr(run)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run)
    shown = console.export_text()
    assert "meter.power" in shown
    assert "32×24 uint16" in shown
    html = run._repr_mimebundle_()["text/html"]
    assert "<td>meter.power</td><td>21</td><td>W</td>" in html
    assert "21 rows in W" in repr(run["meter.power"])


def test_the_plot_is_the_knife_edge_and_the_beam(run: Run) -> None:
    figure = run.plot()
    curve, beam = figure.axes[0], next(axes for axes in figure.axes if axes.images)
    assert curve.get_xlabel() == "stage.x (mm)"
    assert curve.get_ylabel() == "meter.power (W)"
    assert figure.axes[-1].get_ylabel() == "counts"
    x, y = curve.lines[0].get_data()
    assert x.tolist() == pytest.approx(np.linspace(0.5, 3.5, 21).tolist())
    assert y[0] > 0.99e-3
    assert y[-1] < 1e-5
    picture = beam.images[0].get_array()
    assert picture.shape == (24, 32)
    assert picture.max() == 4100  # the frame before the blade


def test_a_picture_needs_no_screen_and_who_wants_it_shown_is_told_that_there_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    with pytest.raises(ConfigError, match="no screen") as refused:
        run.plot(show=True)
    assert "savefig" in str(refused.value)
    assert plt.get_fignums() == []
    shown: list[Any] = []
    monkeypatch.setattr(plt, "get_backend", lambda: "tkagg")
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    assert shown == [run.plot(show=True)]
    plt.close("all")


def test_names_are_whole_in_a_narrow_list_and_times_say_their_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        name = "room-20260531T000000.000000Z"
        path = record_run(tmp_path / name, [powers(0, 2)])
        plain = shown(duodaq.runs(tmp_path), 80)
        assert name in plain
        assert "sample" not in plain, "nobody has said anything of a sample"
        duodaq.open_run(path).label(sample="a wafer with a long name", operator="somebody", tags=["first", "second"])
        labelled = shown(duodaq.runs(tmp_path), 80)
        assert "…" not in labelled
        assert all(words in labelled for words in ("a wafer with a long name", "somebody", "tags: first, second"))
        assert "duodaq runs show" in labelled, "where its name stands, for which there was no room"
        assert name in shown(duodaq.runs(tmp_path), 140)
        run = duodaq.open_run(path)
        assert re.search(r"began \(CES?T\)", labelled)
        assert re.search(r"\d\d:\d\d CES?T", shown(run, 100))
        assert re.search(r"since \(CES?T\)", shown(run, 100))
        (axes,) = [a for a in run.plot().axes if a.get_xlabel().startswith("time")]
        assert axes.get_xlabel() == "time (CEST)"
        assert axes.xaxis.get_major_locator().tz.utcoffset(None) == dt.timedelta(hours=2)
    finally:
        monkeypatch.undo()
        time.tzset()


def shown(what: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


def test_without_an_axis_the_plot_is_over_time(tmp_path: Path) -> None:
    figure = duodaq.open_run(record_run(tmp_path / "run", [powers(0, 5)])).plot()
    assert re.fullmatch(r"time \(.+\)", figure.axes[0].get_xlabel())
    assert len(figure.axes[0].lines[0].get_xdata()) == 5


def test_an_event_log_that_is_a_broken_link_is_counted_and_looked_for_once_more_only(tmp_path: Path) -> None:
    path = record_run(tmp_path / "knife", knife_edge())
    os.symlink(path / "nowhere", path / "events~9.jsonl")
    catalog = Catalog(path)
    assert (catalog.event_logs[-1], catalog.torn_events) == ("events~9.jsonl", 1)
    assert catalog.finished


@pytest.mark.leaks_fd("matplotlib keeps the fonts open that it has drawn with")
def test_a_picture_over_time_names_its_instruments_draws_curves_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    curves = [
        Vector("scope", "ripple", "V", 1_780_000_000_000_000_000, 0, np.arange(3.0)),
        Spectrum("spec", "light", "mW", 1_780_000_000_000_000_000, 0, np.ones(4), np.linspace(780, 820, 4), "nm"),
    ]
    still = [batch for batch in knife_edge(1) if batch.schema.metadata[b"duodaq.schema"] == b"stage/1"]
    rows = [powers(0, 50), *still, vector_batch([curves[0]]), spectrum_batch([curves[1]])]
    figure = duodaq.open_run(record_run(tmp_path / "run", rows)).plot()
    figure.savefig(tmp_path / "run.png")
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels[0][1] == "meter.power (W)"
    assert ("axis (nm)", "spec.light (mW)") in labels
    assert ("place in the vector", "scope.ripple (V)") in labels
    assert figure.get_supxlabel() == "not drawn: stage.x"
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_xticklabels() if tick.get_text()]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_what_has_no_times_is_drawn_in_its_order(tmp_path: Path) -> None:
    told = {**(powers(0, 1).schema.metadata or {})}
    batch = pa.RecordBatch.from_pydict({"value": [3.0, 1.0, 2.0]}).replace_schema_metadata(told)
    (axes,) = duodaq.open_run(record_run(tmp_path / "run", [batch])).plot().axes
    assert axes.get_xlabel() == "row"
    assert axes.lines[0].get_ydata().tolist() == [3.0, 1.0, 2.0]


def test_of_very_many_values_the_peaks_are_drawn(tmp_path: Path) -> None:
    values = np.zeros(100_003)
    values[[7, 50_001, 100_002]] = 5.0, -3.0, 4.0
    values[60_000] = np.nan
    batch = pa.RecordBatch.from_pydict({"value": values}).replace_schema_metadata(powers(0, 1).schema.metadata)
    (axes,) = duodaq.open_run(record_run(tmp_path / "run", [batch])).plot().axes
    x, y = axes.lines[0].get_data()
    assert len(x) < 20_000
    assert {int(at): v for at, v in zip(x, y, strict=True) if v} | {60_000: None} == {
        7: 5.0,
        50_001: -3.0,
        60_000: None,
        100_002: 4.0,
    }
    assert np.isnan(y[[*x].index(60_000)])
