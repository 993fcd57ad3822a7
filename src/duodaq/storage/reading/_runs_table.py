"""Runs in lines: one for each, in whatever width there is, and a second one only for labels that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from duodaq.storage.reading._card import STATES, lasting, local, zone

if TYPE_CHECKING:
    from duodaq.storage.reading._run import Run

_GAP = "  "
_RIGHT = ("run", "took")
_FACTS = 4


def lines_of(runs: Sequence[Run], width: int) -> Iterator[Text]:
    """The table of some runs: number, begin and state always; then labels and directory, as many as fit in `width`.

    Labels that do not fit stand below their run. A directory that does not fit is left out where the numbers name the
    runs as well, and that is said.
    """
    columns = _columns(runs)
    widths = {name: max(cell_len(cell) for cell in (name, *cells)) for name, cells in columns.items()}
    shown, below = _fitting(widths, width)
    numbers = [run.number for run in runs]
    if "directory" in below and all(numbers) and len({*numbers}) == len(numbers):
        below.remove("directory")
        hint = "Their directories: in a wider window, or by `duodaq runs show RUN`."
    else:
        hint = ""
    yield Text(_line(shown, list(shown), widths), style="bold", no_wrap=True, overflow="ellipsis")
    yield Text("─" * min(width, sum(widths[n] for n in shown) + len(_GAP) * (len(shown) - 1)))
    for number, run in enumerate(runs):
        line = Text(_line(shown, [columns[name][number] for name in shown], widths), no_wrap=True, overflow="ellipsis")
        line.highlight_words([f" {run.state} ", f" {run.state}"], STATES[run.state])
        yield line
        said = " · ".join(f"{name}: {columns[name][number]}" for name in below if columns[name][number])
        if said:
            yield from _indented(said, widths["run"] + len(_GAP), width)
    if hint:
        yield Text(hint, style="dim")


def _columns(runs: Sequence[Run]) -> dict[str, list[str]]:
    starts = [run.start for run in runs if run.start is not None]
    labels = [run.labels for run in runs]
    facts = {
        "run": [str(run.number or "–") for run in runs],
        f"began ({zone(starts[-1] if starts else None)})": [local(run.start) for run in runs],
        "took": [lasting(run.duration) for run in runs],
        "state": [run.state for run in runs],
    }
    said = {
        "sample": [one.sample for one in labels],
        "directory": [run.path.name for run in runs],
        "operator": [one.operator for one in labels],
        "tags": [", ".join(one.tags) for one in labels],
    }
    plain = {name: [" ".join(cell.split()) for cell in cells] for name, cells in said.items() if any(cells)}
    return facts | plain


def _fitting(widths: dict[str, int], width: int) -> tuple[list[str], list[str]]:
    """Which columns stand side by side, and which do not fit; the facts always do, and labels go before directories."""
    shown = list(widths)[:_FACTS]
    used = sum(widths[name] for name in shown) + len(_GAP) * (len(shown) - 1)
    for name in ("sample", "operator", "tags", "directory"):
        if name in widths and used + len(_GAP) + widths[name] <= width:
            used += len(_GAP) + widths[name]
            shown.append(name)
    return shown, [name for name in widths if name not in shown]


def _line(names: Sequence[str], cells: Sequence[str], widths: dict[str, int]) -> str:
    padded = [
        " " * (widths[name] - cell_len(cell)) + cell if name in _RIGHT else set_cell_size(cell, widths[name])
        for name, cell in zip(names, cells, strict=True)
    ]
    return _GAP.join(padded).rstrip()


def _indented(said: str, indent: int, width: int) -> Iterator[Text]:
    """Words below a run, over as many lines as they need."""
    from rich.console import Console

    for line in Text(said, style="dim").wrap(Console(width=width), max(20, width - indent)):
        yield Text(" " * indent).append_text(line)
