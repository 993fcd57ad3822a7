"""A picture of a run: its numbers over the axis that moved, or over time, and its brightest frame."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from duodaq.errors import TornFileError
from duodaq.storage.reading._columns import Column, Named
from duodaq.storage.reading._frames import FrameStack, Pixels
from duodaq.storage.reading._together import SCALAR, aligned

if TYPE_CHECKING:
    import matplotlib.figure

    from duodaq.storage.reading._run import Run
    from duodaq.storage.reading._stream import Stream

_LOOKED_AT = 24
_FEWEST_POSITIONS = 3
_MOST_CURVES = 6


def plot(run: Run, x: str | None, y: Sequence[str] | None) -> matplotlib.figure.Figure:
    """See `Run.plot`."""
    figures: Any = importlib.import_module("matplotlib.figure")
    over = run[x] if x is not None else axis_of(run)
    names = [s.name for s in run if s.kind == SCALAR and s is not over and s.name != x] if y is None else list(y)
    curves = names[:_MOST_CURVES] if over is None or y is not None else _following(run, over, names)
    pictures = [stack for stream in run if stream.has_frames for stack in stream.stacks[:1] if len(stack)][:1]
    panels = max(1, len(curves) + len(pictures))
    figure = figures.Figure(figsize=(4.8 * min(panels, 3), 3.6 * -(-panels // 3)), layout="constrained")
    axes = list(figure.subplots(-(-panels // 3), min(panels, 3), squeeze=False).flat)
    for name in curves:
        _curve(axes.pop(0), run, name, over)
    for stack in pictures:
        _picture(axes.pop(0), figure, stack)
    for unused in axes:
        unused.set_axis_off()
    figure.suptitle(" · ".join(part for part in (run.title, run.labels.sample) if part))
    return figure


def axis_of(run: Run) -> Stream | None:
    """The stream of the axis that was at most different places; None if none moved."""
    best, most = None, _FEWEST_POSITIONS - 1
    for stream in run:
        if stream.kind != "stage/1" and not (stream.kind == SCALAR and stream.name.endswith("position")):
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


def _curve(axes: Any, run: Run, name: str, over: Stream | None) -> None:
    if over is None:
        alone = run[name].named()
        _draw(axes, Column("time", (), _dates(alone)), alone.signal)
        return
    base, columns = aligned(over, [run[name]], "next")
    _draw(axes, base.signal, columns[-1] if len(columns) > len(base.columns) else None, marks=True)


def _draw(axes: Any, x: Column | None, y: Column | None, *, marks: bool = False) -> None:
    if x is None or y is None:
        return
    order = np.argsort(x.values, kind="stable")
    axes.plot(x.values[order], y.values[order], "o-" if marks else "-", markersize=4, linewidth=1)
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))
    axes.grid(alpha=0.3)


def _dates(found: Named) -> Any:
    return (np.empty(0, np.int64) if found.times_ns is None else found.times_ns).view("datetime64[ns]")


def _label(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _picture(axes: Any, figure: Any, stack: FrameStack) -> None:
    frame = brightest(stack)
    if frame is None:
        axes.set_axis_off()
        return
    shown = axes.imshow(frame, origin="upper", cmap="inferno")
    figure.colorbar(shown, ax=axes, shrink=0.8)
    axes.set_xlabel("x (pixels)")
    axes.set_ylabel("y (pixels)")
