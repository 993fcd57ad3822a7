"""A picture of a run: the points of its scan, or its numbers over the axis that moved or over time, and a frame."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duodaq.errors import ConfigError, TornFileError
from duodaq.storage.reading._card import zone
from duodaq.storage.reading._columns import Column, pixels_unit
from duodaq.storage.reading._frames import FrameStack, Pixels
from duodaq.storage.reading._silences import Places, silences
from duodaq.storage.reading._together import SCALAR, STAGE, aligned

if TYPE_CHECKING:
    import matplotlib.figure

    from duodaq.storage.reading._run import Run
    from duodaq.storage.reading._scan import RecordedScan
    from duodaq.storage.reading._stream import Stream

Panel = Callable[[Any], None]

_PIXELS = "counts"  # what pixels are whose schema names no unit, as in `duodaq.schema`
_ROWS = ("vector/1", "spectrum/1")
_LOOKED_AT = 24
_FEWEST_POSITIONS = 3
_MOST_CURVES = 6
_MOST_STRETCHES = 5000
_WORTH_IT = 8
_NOWHERE = np.empty(0, np.int64)
_ON_PAPER = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")
"""What matplotlib draws with where there is no screen."""


def plot(run: Run, x: str | None, y: Sequence[str] | None, *, show: bool = False) -> matplotlib.figure.Figure:
    """See `Run.plot`."""
    make = _window if show else importlib.import_module("matplotlib.figure").Figure
    drawn = (_of_scans(run) if x is None and y is None else []) or _of_streams(run, x, y)
    pictures = [(s, stack) for s in run if s.has_frames for stack in s.stacks[:1] if len(stack)][:1]
    panels = max(1, len(drawn) + len(pictures))
    figure: Any = make(figsize=(4.8 * min(panels, 3), 3.6 * -(-panels // 3)), layout="constrained")
    axes = list(figure.subplots(-(-panels // 3), min(panels, 3), squeeze=False).flat)
    for draw in drawn:
        draw(axes.pop(0))
    for stream, stack in pictures:
        _picture(axes.pop(0), figure, stack, pixels_unit(stream.schema) or _PIXELS)
    for unused in axes:
        unused.set_axis_off()
    if left := _left_out(run, drawn, [stream.name for stream, _ in pictures], y):
        figure.supxlabel(f"not drawn: {', '.join(left)}", x=0.995, ha="right", fontsize=7, color="0.4")
    figure.suptitle(" · ".join(part for part in (run.title, run.labels.sample) if part))
    if show:
        importlib.import_module("matplotlib.pyplot").show()
    return figure


def _window(**options: Any) -> Any:
    """A figure in a window.

    Raises:
        ConfigError: There is no screen to show it on.
    """
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    if pyplot.get_backend().lower() in _ON_PAPER:
        remedy = "Save it: run.plot().savefig('run.png')."
        raise ConfigError("there is no screen that a picture could be shown on", remedy=remedy)
    return pyplot.figure(**options)


def _of_scans(run: Run) -> list[Panel]:
    """What was read in the last scan that moved an axis and measured something there: at each point, over the axis."""
    for scan in reversed(run.scans):
        names = [n for n in scan.fields() if n not in scan.axes and not n.endswith("_setpoint")]
        curves = {n: v for n in names if (v := scan[n]).ndim == 1 and np.issubdtype(v.dtype, np.number)}
        if scan.axes and len(scan) and curves:
            return [partial(_points, scan=scan, name=n, values=v) for n, v in [*curves.items()][:_MOST_CURVES]]
    return []


def _of_streams(run: Run, x: str | None, y: Sequence[str] | None) -> list[Panel]:
    over = run[x] if x is not None else axis_of(run)
    rows = [] if x is not None or y is not None else [s for s in run if s.kind in _ROWS and len(s)]
    if y is not None:
        panels = [partial(_curve, run=run, name=name, over=_under(run, name, x, over)) for name in y[:_MOST_CURVES]]
    else:
        names = [s.name for s in run if s.kind == SCALAR and (over is None or s.name != over.name)]
        curves = names[:_MOST_CURVES] if over is None else _following(run, over, names)
        panels = [partial(_curve, run=run, name=name, over=over) for name in curves]
        if x is None and not panels and not rows:
            alone = [s.name for s in run if len(s) and (s.kind == STAGE or (over is not None and s.name == over.name))]
            panels = [partial(_curve, run=run, name=name, over=None) for name in alone[:_MOST_CURVES]]
    return panels + [partial(_newest, run=run, name=s.name) for s in rows[: _MOST_CURVES - len(panels)]]


def _under(run: Run, name: str, x: str | None, over: Stream | None) -> Stream | None:
    """What a stream that was asked for by name is drawn over; None: the time, as of an axis unless `x` is another."""
    if over is None or name == over.name or (x is None and run[name].kind == STAGE):
        return None
    return over


def axis_of(run: Run) -> Stream | None:
    """The stream of the axis that was at most different places; None if none moved."""
    best, most = None, _FEWEST_POSITIONS - 1
    for stream in run:
        if stream.kind != STAGE and not (stream.kind == SCALAR and stream.name.endswith("position")):
            continue
        signal = stream.named().signal
        places = 0 if signal is None else len(np.unique(signal.values))
        if places > most:
            best, most = stream, places
    return best


def brightest(stack: FrameStack) -> Pixels | None:
    """The frame with most light of some that lie evenly in a stack; None if all of those are damaged."""
    best, most = None, -np.inf
    for number in np.unique(np.linspace(0, len(stack) - 1, _LOOKED_AT).astype(int)):
        try:
            frame = stack[int(number)]
        except TornFileError:
            continue
        if (light := float(frame.mean())) > most:
            best, most = frame, light
    return best


def _following(run: Run, over: Stream, names: list[str]) -> list[str]:
    """Those streams that were measured while the axis moved: it explains no others."""
    times = over.named().times_ns
    if times is None or not len(times):
        return names[:_MOST_CURVES]
    moved = [name for name in names if len(run[name].between(int(times[0])))]
    return moved[:_MOST_CURVES]


def _points(axes: Any, scan: RecordedScan, name: str, values: npt.NDArray[Any]) -> None:
    """A field of a scan, its points in their order; of a grid of two axes, over both."""
    units, grid = scan.units, scan.grid
    if grid is None or len(grid.positions) != 2:
        x = Column(scan.axes[0], (), scan[scan.axes[0]], units[scan.axes[0]])
        _draw(axes, x, Column(name, (), values, units[name]), marks=True)
        return
    slow, fast = grid.positions
    shown = axes.pcolormesh(grid.positions[fast], grid.positions[slow], grid.cells(values), shading="nearest")
    axes.figure.colorbar(shown, ax=axes, label=_label(Column(name, (), values, units[name])))
    for label, axis in ((axes.set_xlabel, fast), (axes.set_ylabel, slow)):
        label(_label(Column(axis, (), values, units[axis])))


def _curve(axes: Any, run: Run, name: str, over: Stream | None) -> None:
    if over is None:
        alone = run[name].named()
        signal = None if alone.signal is None else alone.signal._replace(name=name)
        if alone.times_ns is None:  # nobody knows when they were measured: in their order
            rows = 0 if signal is None else len(signal.values)
            _draw(axes, Column("row", (), np.arange(rows), ""), signal)
            return
        dates, start = alone.times_ns.view("datetime64[ns]"), run[name].start
        lost = [one for one in run.outages if name.startswith(f"{one.instrument}.")]
        _draw(axes, Column("time", (), dates, zone(start)), signal, breaks=silences(alone.times_ns, lost))
        if start is not None:
            _ticks_of_time(axes.xaxis, start.astimezone().tzinfo)  # a picture is for people: local time, and it says so
        return
    # a scan reads its instruments before its axis: what was there last belongs to the position
    base, columns = aligned(over, [run[name]], "last")
    if base.signal is None or len(columns) == len(base.columns):
        return
    order = np.argsort(base.signal.values, kind="stable")
    x, y = (
        column._replace(name=stream, values=column.values[order])
        for stream, column in ((over.name, base.signal), (name, columns[len(base.columns)]))
    )
    _draw(axes, x, y, marks=True)


def _newest(axes: Any, run: Run, name: str) -> None:
    """The newest row of a vector or a spectrum, over its own axis or the places in it."""
    stream = run[name]
    batch = stream.to_arrow().slice(len(stream) - 1)
    values = np.asarray(batch.column("values")[0].as_py(), np.float64)
    place = np.arange(len(values)) if stream.kind != "spectrum/1" else np.asarray(batch.column("axis")[0].as_py())
    units = stream.units
    over = Column("axis" if stream.kind == "spectrum/1" else "place in the vector", (), place, units.get("axis", ""))
    _draw(axes, over, Column(name, (), values, units.get("values", "")))
    axes.set_title(f"the newest of {len(stream):,}", fontsize=8)


def _left_out(run: Run, drawn: list[Panel], pictures: list[str], y: Sequence[str] | None) -> list[str]:
    """Streams, or fields of a scan, that nobody chose to leave out and that are not in the picture."""
    if y is not None:
        return []
    told: list[dict[str, Any]] = [getattr(panel, "keywords", {}) for panel in drawn]
    names = {facts["name"] for facts in told}
    scan: RecordedScan | None = next((facts["scan"] for facts in told if "scan" in facts), None)
    if scan is not None:
        return [n for n in scan.fields() if n not in {*names, *scan.axes} and not n.endswith("_setpoint")]
    over = {facts["over"].name for facts in told if facts.get("over") is not None}
    return [s.name for s in run if len(s) and s.name not in names | over | {*pictures}]


def _ticks_of_time(axis: Any, zone: Any) -> None:
    """Few enough times for a narrow panel, each as short as it can be said; the day stands once, below."""
    dates = importlib.import_module("matplotlib.dates")
    axis.axis_date(zone)
    locator = dates.AutoDateLocator(tz=zone, minticks=3, maxticks=5)
    axis.set_major_locator(locator)
    axis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))


def _draw(axes: Any, x: Column | None, y: Column | None, *, marks: bool = False, breaks: Places = _NOWHERE) -> None:
    """Draw a curve, broken before the values at `breaks`; a value with nothing beside it is a dot."""
    if x is None or y is None:
        return
    shown = np.arange(len(y.values))[_thinned(y.values)]
    at = np.unique(np.searchsorted(shown, breaks))
    at = at[at < len(shown)]
    places, values = x.values[shown], y.values[shown]
    if len(at):
        places, values = np.insert(places, at, places[at - 1]), np.insert(values, at, np.nan)
    (line,) = axes.plot(places, values, "o-" if marks else "-", markersize=4, linewidth=1)
    alone = _alone(values)
    if alone.any() and not marks:
        axes.plot(places[alone], values[alone], "o", markersize=2, color=line.get_color())
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))
    axes.grid(alpha=0.3)


def _alone(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which values have none beside them that a line could lead to."""
    known = np.pad(~np.isnan(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def _thinned(values: npt.NDArray[Any]) -> slice | npt.NDArray[np.intp]:
    """Which of very many values are drawn: of each stretch the least and the greatest, so that no peak is lost."""
    size = len(values) // _MOST_STRETCHES
    if size < _WORTH_IT or not np.issubdtype(values.dtype, np.floating):
        return slice(None)
    whole = values[: size * _MOST_STRETCHES].reshape(_MOST_STRETCHES, size)
    begins = np.arange(_MOST_STRETCHES) * size
    blank = np.isnan(whole)
    least, most = (np.where(blank, fill, whole) for fill in (np.inf, -np.inf))
    rest = np.arange(size * _MOST_STRETCHES, len(values))
    return np.unique(
        np.concatenate([begins + least.argmin(1), begins + most.argmax(1), blank.argmax(1) + begins, rest])
    )


def _label(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _picture(axes: Any, figure: Any, stack: FrameStack, unit: str) -> None:
    frame = brightest(stack)
    if frame is None:
        axes.set_axis_off()
        return
    shown = axes.imshow(frame, origin="upper", cmap="inferno")
    figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
    axes.set_xlabel("x (pixels)")
    axes.set_ylabel("y (pixels)")
