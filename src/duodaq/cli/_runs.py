"""Recorded runs on the command line: listed, shown, labelled, compared, exported, repaired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from duodaq.cli._console import say_json
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, StorageError
from duodaq.storage.export import FORMATS, Exported, Frames, export, in_words
from duodaq.storage.journal import Recovery, recover, unfinished_runs
from duodaq.storage.reading import Difference, Run, Runs, counted, differences, facts_of, find_run, is_run, runs

_KEYS = ("sample", "operator", "tag", "since", "until", "state", "log")
_NAME_COLUMNS = 44


def list_runs(words: Sequence[str], directory: Path, out: Console, *, as_json: bool) -> None:
    """Print the runs of a directory that are what `words` ask for: ``sample=knife*``, or words of their labels.

    Raises:
        ConfigError: There is no such directory, or no such key.
    """
    asked = dict(_key_and_value(word) for word in words if "=" in word)
    text = " ".join(word for word in words if "=" not in word)
    try:
        found = runs(directory, text=text or None, **asked)
    except StorageError as error:
        raise ConfigError(error.what, key="--dir") from error
    except ValueError as error:
        raise ConfigError(str(error), remedy="Times are written as 2026-05-31 or 2026-05-31T14:00+02:00.") from error
    if as_json:
        say_json(out, [facts_of(run) for run in found])
    elif found:
        out.print(Runs(found))
    else:
        out.print("No runs." if not words else "No such runs.")


def show_run(name: str, directory: Path, out: Console, *, as_json: bool) -> None:
    """Print one run."""
    run = _run(name, directory)
    if not as_json:
        out.print(run)
        return
    streams = {s.name: {"rows": len(s), "units": s.units, "frames": s.has_frames} for s in run}
    scans = [
        {
            "uid": s.uid,
            "axes": s.axes,
            "fields": s.fields(),
            "points": len(s),
            "planned": s.planned,
            "complete": s.complete,
        }
        for s in run.scans
    ]
    outages = [msgspec.to_builtins(one._asdict()) for one in run.outages]
    told = {**facts_of(run), "streams": streams, "scans": scans, "outages": outages, "provenance": run.provenance}
    say_json(out, told)


def label_run(
    name: str,
    directory: Path,
    out: Console,
    sample: str | None,
    operator: str | None,
    note: str | None,
    tags: list[str],
) -> None:
    """Change what is said of a run."""
    run = _run(name, directory)
    run.label(sample=sample, operator=operator, note=note, tags=tags or None)
    out.print(run)


def show_differences(one: str, other: str, directory: Path, out: Console, *, as_json: bool) -> int:
    """Print what is not the same in two runs; 1 if anything is, 0 if nothing."""
    pair = (_run(one, directory), _run(other, directory))
    found = differences(*pair)
    if as_json:
        say_json(out, {d.name: [d.ours, d.theirs] for d in found})
        return int(bool(found))
    if not found:
        out.print("They do not differ in labels, settings, versions or streams.")
        return 0
    out.print(Text(f"{pair[0].title} → {pair[1].title}", style="bold"), soft_wrap=True)
    lines = [(difference.name.removeprefix("definition."), _change(difference, pair)) for difference in found]
    width = min(_NAME_COLUMNS, max(len(name) for name, _ in lines))
    for name, change in lines:
        out.print(Text(f"  {name:{width}}  {change}"), soft_wrap=True)
    return 1


def _change(difference: Difference, pair: tuple[Run, Run]) -> str:
    """What became of one thing, in a line; what is there in one run alone is named, and not spelled out."""
    _, ours, theirs = difference
    if None in (ours, theirs) and isinstance(ours or theirs, dict):
        return f"only in {pair[ours is None].title}"
    return f"{_said(ours)} → {_said(theirs)}"


def export_run(
    name: str,
    forms: Sequence[str],
    directory: Path,
    target: Path | None,
    frames: str | None,
    out: Console,
    *,
    as_json: bool,
) -> int:
    """Write a run in other forms; 1 if any of it is damaged, so that it is not in them, 0 if not.

    Raises:
        ConfigError: There is no such run or form, or what it needs is not installed. Nothing was written.
    """
    unknown = [form for form in forms if form not in FORMATS]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no form of a run", key="--to", remedy=f"Known: {', '.join(FORMATS)}.")
    if frames not in (None, *get_args(Frames)):
        raise ConfigError(
            f"{frames!r} is no place for frames", key="--frames", remedy=f"Known: {', '.join(get_args(Frames))}."
        )
    run = _run(name, directory)
    if target is not None and len(forms) > 1:
        target.mkdir(parents=True, exist_ok=True)
    done: list[Exported] = []
    aside = Console(stderr=True, highlight=False)
    for form in forms:
        with Progress(*_columns(), console=aside, transient=True, disable=not aside.is_terminal) as progress:
            bar: Any = _Bars(progress, form)
            asked: Any = {"to": form, "target": target, "frames": frames if form == "hdf5" else None}
            try:
                done.append(export(run, progress=bar, **asked))
            except ImportError as error:
                remedy = "It comes with duodaq[data]."
                raise ConfigError(f"{error.name} is not installed", key=f"--to {form}", remedy=remedy) from error
    if as_json:
        told = [
            {"format": e.format, "files": e.files, "bytes": e.size, "plugin": e.plugin or None, "missing": e.missing}
            for e in done
        ]
        say_json(out, told)
    for one in [] if as_json else done:
        equal = "what is sound in the damaged journal" if one.missing else "the journal"
        out.print(f"{one.format}: {_size(one.size)}, read back and equal to {equal}")
        if one.missing:
            out.print(Text(f"  {in_words(one.missing)}", style="bold red"), soft_wrap=True)
        for file in one.files:
            out.print(Text(f"  {file}"), soft_wrap=True)
        if one.plugin:
            out.print(Text(f"  Its frames are compressed: in Python, `import {one.plugin}` before you open it."))
    return int(any(one.missing for one in done))


def recover_runs(directory: Path, out: Console, *, all_too: bool, as_json: bool) -> int:
    """Repair the unfinished runs of a directory, or one run; 1 if anything is missing from them or could not be done.

    Raises:
        ConfigError: There is no such directory.
    """
    try:
        places = unfinished_runs(directory)
        if all_too:
            places = sorted({*places, *(run.path for run in runs(directory) if run.state == "finished")})
    except StorageError as error:
        raise ConfigError(error.what) from error
    found: dict[Path, Recovery | DuodaqError] = {}
    for place in places:
        try:
            found[place] = recover(place, finished_too=all_too)
        except (StorageError, LifecycleError) as error:
            found[place] = error
    if as_json:
        say_json(out, {str(place): _plain(one) for place, one in found.items()})
    else:
        _print_recoveries(directory, found, out)
    return int(any(isinstance(one, DuodaqError) or one.gaps or one.unidentified for one in found.values()))


class _Bars:
    """A progress bar for each stream."""

    def __init__(self, progress: Progress, form: str) -> None:
        self._progress = progress
        self._form = form
        self._bars: dict[str, TaskID] = {}

    def __call__(self, stream: str, done: int, total: int) -> None:
        if stream not in self._bars:
            self._bars[stream] = self._progress.add_task(f"{self._form}  {stream}", total=total)
        self._progress.update(self._bars[stream], completed=done, total=total)


def _columns() -> tuple[Any, ...]:
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


def _run(name: str, directory: Path) -> Run:
    try:
        return find_run(name, directory)
    except StorageError as error:
        raise ConfigError(error.what, remedy="`duodaq runs` lists them; --dir says where they lie.") from error


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _key_and_value(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    if key not in _KEYS:
        raise ConfigError(f"runs have no {key!r} to be found by", remedy=f"Known: {', '.join(_KEYS)}, and plain words.")
    return key, value


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str) and value and "\n" not in value:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(one: Recovery | DuodaqError) -> dict[str, Any]:
    if isinstance(one, DuodaqError):
        return {"error": str(one)}
    gaps = [gap._asdict() for gap in one.gaps]
    return {"rows": one.rows, "gaps": gaps, "cut_bytes": one.cut_bytes, "changed": one.changed} | {
        "lost": one.lost,
        "kept": one.kept,
        "unidentified": one.unidentified,
    }


def _print_recoveries(directory: Path, found: dict[Path, Recovery | DuodaqError], out: Console) -> None:
    if not found:
        one = "It is no unfinished run." if is_run(directory) else f"No unfinished runs in {directory}."
        out.print(Text(one))
    for place, one in found.items():
        if isinstance(one, DuodaqError):
            out.print(Text(f"{place.name}: {one}", style="bold red"), soft_wrap=True)
            continue
        rows = sum(one.rows.values())
        style = "yellow" if one.gaps else "green"
        what = counted(len(one.gaps), "gap") if one.gaps else "nothing is missing"
        out.print(Text(f"{place.name}: {counted(rows, 'row')}, {what}", style=style), soft_wrap=True)
        for gap in one.gaps:
            count = "an unknown number of rows" if gap.rows is None else counted(gap.rows, "row")
            out.print(Text(f"  {gap.stream}: {count} ({gap.reason}) {_between(gap.after, gap.before)}"), soft_wrap=True)
        _print_rest(one, out)


def _print_rest(one: Recovery, out: Console) -> None:
    if one.unidentified:
        what = (
            "run.json and the event log were lost: which run it is, its indices say; settings and losses are not known"
        )
        out.print(Text(f"  {what}", style="yellow"), soft_wrap=True)
    if one.lost:
        told = ", ".join(f"{rows:,} ({reason})" for reason, rows in one.lost.items())
        out.print(Text(f"  rows lost while it was recorded: {told}"), soft_wrap=True)
    for name in one.kept:
        out.print(Text(f"  bytes that no entry covers are kept in {name}"), soft_wrap=True)


def _between(after: int | None, before: int | None) -> str:
    return f"behind {'the start' if after is None else after}, before {'the end' if before is None else before}"
