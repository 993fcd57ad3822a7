"""The runs of a directory: found, filtered, compared."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import msgspec

from duodaq import markup
from duodaq.errors import StorageError
from duodaq.storage.reading._card import counted, local
from duodaq.storage.reading._moments import Moment, moment_ns
from duodaq.storage.reading._place import is_run
from duodaq.storage.reading._run import Run
from duodaq.storage.reading._series import Series, of_series

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs] - it brings no types
    from rich.console import Console, ConsoleOptions
    from rich.text import Text


class Runs(Sequence[Run]):
    """Some runs, the latest last. Nothing of them was read but what they are."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = sorted(runs, key=lambda run: 0 if run.start is None else run.start.timestamp())

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def together(self) -> Series:
        """These runs read as one, as the days of a log."""
        return Series(self)

    def to_pandas(self) -> pandas.DataFrame:
        """One row for each run: number, path, start, state, labels."""
        return importlib.import_module("pandas").DataFrame([facts_of(run) for run in self])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from duodaq.storage.reading._runs_table import lines_of

        yield from lines_of(self, options.max_width)

    def _repr_html_(self) -> str:
        rows = [
            (run.number or "–", local(run.start), run.state, run.labels.sample, run.labels.operator, run.path)
            for run in self._runs[-markup.MOST_ROWS :]
        ]
        left = len(self) - len(rows)
        facts = [f"the last {len(rows)} of them"] if left else []
        head = ("run", "start", "state", "sample", "operator", "path")
        return markup.page(counted(len(self), "run"), facts, markup.table(head, rows))

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'run')}>"


def runs(
    directory: str | Path = "runs",
    *,
    sample: str | None = None,
    operator: str | None = None,
    tag: str | None = None,
    text: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    state: str | None = None,
    log: str | None = None,
) -> Runs:
    """The runs of a directory, the latest last; those that are all of what is asked for.

    Args:
        directory: Where they lie, or one of them.
        sample: Its sample; ``*`` and ``?`` as in file names, upper and lower case alike.
        operator: Likewise.
        tag: One of its tags; likewise.
        text: Words that occur, each somewhere: in its labels, the name of its directory, or its number.
        since: It began then or later.
        until: It began before.
        state: ``finished``, ``recording`` or ``unfinished``.
        log: It belongs to the log of that name; ``runs(log="room").together()`` reads them as one.

    Raises:
        StorageError: There is no such directory.
    """
    since_ns, until_ns = (None if moment is None else moment_ns(moment) for moment in (since, until))
    checks: list[Callable[[Run], bool]] = []
    if sample is not None:
        checks.append(lambda run: _fits(run.labels.sample, sample))
    if operator is not None:
        checks.append(lambda run: _fits(run.labels.operator, operator))
    if tag is not None:
        checks.append(lambda run: any(_fits(one, tag) for one in run.labels.tags))
    if text is not None:
        checks.append(lambda run: all(_occurs(word, run) for word in text.split()))
    if since_ns is not None:
        checks.append(lambda run: run.start is not None and run.page.start_ns >= since_ns)
    if until_ns is not None:
        checks.append(lambda run: run.start is not None and run.page.start_ns < until_ns)
    if state is not None:
        checks.append(lambda run: run.state == state)
    if log is not None:
        checks.append(lambda run: of_series(run, log))
    return Runs(run for run in _all(Path(directory)) if all(check(run) for check in checks))


def open_run(path: str | Path | int) -> Run:
    """Open a run, finished, growing or left behind by a crash: read what it is, and nothing else yet.

    Args:
        path: Its directory; or, of a run in ``runs/``, what it is called by on the command line: its number, its
            directory's name, the start of its uid, or ``last``.

    Raises:
        StorageError: There is no run, or there are several.
    """
    name = str(path)
    is_word = isinstance(path, int) or (isinstance(path, str) and Path(name).name == name and not Path(name).exists())
    return find_run(name) if is_word else Run(name)


def find_run(name: str | Path, directory: str | Path = "runs") -> Run:
    """The run that a person means: by path, by its directory's name, by number, by the start of its uid, or ``last``.

    Raises:
        StorageError: There is none, or several.
    """
    for path in (Path(name), Path(directory) / name):
        if is_run(path):
            return Run(path)
    known = runs(directory) if Path(directory).is_dir() else Runs([])
    word = str(name)
    if word == "last" and known:
        return known[-1]
    found = [run for run in known if word == str(run.number) or (len(word) >= 4 and run.uid.startswith(word))]
    if len(found) == 1:
        return found[0]
    if found:
        raise StorageError(
            f"{len(found)} runs in {directory} are called {word}: {', '.join(r.path.name for r in found)}"
        )
    raise StorageError(f"there is no run {word}, neither as a directory nor in {directory}")


def facts_of(run: Run) -> dict[str, Any]:
    """A run as plain values, cheap to get."""
    labels = msgspec.to_builtins(run.labels)
    return {
        "number": run.number,
        "path": str(run.path),
        "uid": run.uid,
        "start": None if run.start is None else run.start.isoformat(),
        "stop": None if run.stop is None else run.stop.isoformat(),
        "state": run.state,
        **labels,
    }


_OF_THE_MOMENT = ("file", "instruments", "alarms")
"""The lab file's text, which is in the definition, and how instruments and alarms stood."""


_NAMES = ("id", "name", "channel")
"""What names a thing in a list of them: an instrument, a port or an axis, a poll."""


class Difference(NamedTuple):
    """One thing that is not the same in two runs: its dotted name and both values; None where it is not there."""

    name: str
    ours: Any
    theirs: Any


def differences(one: Run, other: Run) -> list[Difference]:
    """What differs in how two runs came about: labels, lab, settings, versions, streams and their units.

    Of two lists of named things, instruments or ports, those of one name are compared; one that is in one run alone
    is one difference, whatever it is made of.
    """
    return [*_between("", _comparable(one), _comparable(other))]


def _comparable(run: Run) -> dict[str, Any]:
    labels = msgspec.to_builtins(run.labels)
    labels.pop("edited")
    labels["tags"] = [*labels["tags"]]
    return {
        "labels": labels,
        **_settings(run.provenance),
        "versions": run.versions,
        "host": "" if not run.uid else run.page.host,
        "git": None if not run.uid else run.page.git,
        "streams": {s.name: {"columns": list(s.schema.names), "units": s.units} for s in run},
    }


def _settings(provenance: dict[str, Any]) -> dict[str, Any]:
    """How things were set at the start: parameters by instrument and name, without what is another each time."""
    found = {name: value for name, value in provenance.items() if name not in _OF_THE_MOMENT}
    entries: Any = provenance.get("parameters")
    if isinstance(entries, list):
        known = cast("list[dict[str, Any]]", entries)
        found["parameters"] = {f"{e.get('instrument')}.{e.get('parameter')}": _quantity(e) for e in known}
    return found


def _quantity(entry: dict[str, Any]) -> Any:
    return f"{entry.get('value')} {entry['unit']}" if entry.get("unit") else entry.get("value")


def _between(name: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    here, there = _parts(ours), _parts(theirs)
    if here is None or there is None:
        if ours != theirs:
            yield Difference(name, ours, theirs)
        return
    for key in dict.fromkeys([*here, *there]):
        yield from _between(f"{name}.{key}".removeprefix("."), here.get(key), there.get(key))


def _parts(value: Any) -> dict[str, Any] | None:
    """What something is made of, by name: a table, or a list of things that all have names of their own."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value) or None
    if not isinstance(value, list) or not value:
        return None
    things = cast("list[Any]", value)
    names = [_name_of(thing) for thing in things]
    return dict(zip(names, things, strict=True)) if all(names) and len({*names}) == len(names) else None


def _name_of(thing: Any) -> str:
    facts = cast("dict[str, Any]", thing) if isinstance(thing, dict) else {}
    return next((str(facts[key]) for key in _NAMES if facts.get(key)), "")


def _all(directory: Path) -> Iterator[Run]:
    if is_run(directory):
        yield Run(directory)
        return
    try:
        places = sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError as error:
        raise StorageError(f"cannot look for runs in {directory}: {error.strerror}") from error
    for place in places:
        if is_run(place):
            try:
                yield Run(place)
            except StorageError:
                continue  # a directory of something else, or a recording of an older format


def _fits(value: str, pattern: str) -> bool:
    return fnmatchcase(value.casefold(), pattern.casefold())


def _occurs(word: str, run: Run) -> bool:
    labels = run.labels
    said = json.dumps([labels.sample, labels.operator, labels.note, labels.tags, run.path.name], ensure_ascii=False)
    return word == str(run.number) or word.casefold() in said.casefold()
