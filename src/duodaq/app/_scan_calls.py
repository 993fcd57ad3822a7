"""What a program says and asks when it scans: its arguments, checked, and the scan itself, here or at the lab."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from duodaq.app._channel import Channel
from duodaq.app._documents import DocumentJournal, plain
from duodaq.app._handles import AxisHandle, InstrumentHandle
from duodaq.app._scan_facts import ScanStatus
from duodaq.app._scans_handle import ScanHandle, watched
from duodaq.clock import one_interrupt
from duodaq.errors import OutOfRangeError, ScanInterruptedError, StorageError
from duodaq.units import number_in

if TYPE_CHECKING:
    from duodaq.bluesky import ScanRun

Listener = Callable[[str, dict[str, Any]], None]
Parts = Sequence[tuple[AxisHandle, Sequence[float]]]

_POSITIONS = "positions"
_REMEDIES = {
    "settle_s": "how long to wait after each move is settle_s=0.1: seconds",
    "progress": "without the progress bar it is progress=False",
    "record": "what the lab does not record has record=False",
    "on_document": "who hears Bluesky's documents is on_document=",
    "detach": "the lab carries it out by itself with detach=True",
    "snake": "a lab.grid that does not turn back has snake=False",
    _POSITIONS: "the positions are numbers in a list, such as np.linspace(0, 5, 51)",
}
_OTHER_WORDS = {
    "settle_s": "settling settling_time settle_time delay delay_s dwell dwell_s dwell_time wait wait_s wait_time sleep",
    "progress": "progress_bar progressbar show_progress quiet verbose",
    "record": "save recording",
    "on_document": "callback on_doc on_point",
    "detach": "detached in_background",
    "snake": "snake_axes zigzag",
    _POSITIONS: "positions points num num_points n_points npoints steps start stop step",
}
_MEANT = {word: option for option, words in _OTHER_WORDS.items() for word in words.split()}
_LIKE = 0.85
"""So alike are words one of which is a slip: "settle" is one of "settle_s", "process" is none of "progress"."""


def detached(
    channel: Channel,
    parts: Parts,
    readers: Sequence[InstrumentHandle],
    settle_s: float,
    *,
    snake: bool,
    metadata: dict[str, Any],
    alone: tuple[bool, Listener | None],
) -> ScanHandle:
    """Have the lab scan, and return as soon as it has begun.

    Args:
        alone: What only a scan of this program's own has: whether it is recorded, and who hears its documents.
    """
    if alone != (True, None):
        raise TypeError("a detached scan is recorded by the lab, and calls nothing here: leave record and on_document")
    wish = {
        "axes": [[axis.address, [float(one) for one in positions]] for axis, positions in parts],
        "read": [one.id for one in readers],
        "settle_s": settle_s,
        "snake": snake,
        "metadata": plain(metadata),
    }
    begun = channel.request("scan_start", wish)
    return ScanHandle(channel, msgspec.convert(begun, ScanStatus))


def recorded(
    channel: Channel,
    ticket: str | None,
    record: bool,
    on_document: Listener | None,
    parts: Parts,
    readers: Sequence[InstrumentHandle],
    scan: Callable[[Listener, Callable[[], list[str]]], ScanRun],
) -> ScanRun:
    """Scan in this program, as the lab knows and records it; `scan` gets who hears of it, and what it waits for.

    Args:
        ticket: What the lab knows this program by, if it is one of its own.
    """
    names = [axis.address for axis, _ in parts]
    planned = prod(len(positions) for _, positions in parts)
    with one_interrupt(), watched(channel, names, [one.id for one in readers], planned, ticket) as watch:
        journal = DocumentJournal(channel, watch.number) if record else None

        def heard(name: str, document: dict[str, Any]) -> None:
            if journal is not None:
                journal(name, document)
            watch.heard(name)
            if on_document is not None:
                on_document(name, document)

        places = {} if journal is None else journal.directories
        try:
            run = scan(heard, watch.holds)
        except ScanInterruptedError as error:
            directory = places.get(error.run.uid)
            vars(error.run)["directory"] = directory
            if directory is None and isinstance(error.__cause__, StorageError):
                raise error.__cause__ from None
            raise
        run.directory = places.get(run.uid)
        return run


def expect_metadata(method: Literal["scan", "grid"], given: Iterable[str]) -> None:
    """Names of what is said of a run; TypeError, with the right word, for one that is meant as an option."""
    for name in given:
        close = difflib.get_close_matches(name, _OTHER_WORDS, n=1, cutoff=_LIKE)
        option = _MEANT.get(name) or (close[0] if close else None)
        if option is not None:
            what = f"lab.{method} takes no {name!r}; {_REMEDIES[option]}"
            raise TypeError(f"{what}. Metadata cannot be called that. Nothing moved")


def settle_of(given: Any) -> float:
    """How long to wait after each move, in seconds; TypeError for no number, OutOfRangeError for no such time."""
    try:
        settle_s = number_in("s", given)
    except TypeError as error:
        raise TypeError(f"settle_s is a number of seconds; {error}") from error.__cause__
    if not 0 <= settle_s <= 86400:
        raise OutOfRangeError(f"{settle_s:g} s is no time to settle", left="nothing moved")
    return settle_s


def parts_of(*given: tuple[Any, Any]) -> list[tuple[AxisHandle, list[float]]]:
    """Axes with their positions, each in its axis's unit; TypeError for anything else."""
    return [(axis := axis_of(one), positions_of(axis, positions)) for one, positions in given]


def axis_of(given: Any) -> AxisHandle:
    """An axis; TypeError, with the right word, for anything else."""
    if isinstance(given, AxisHandle):
        return given
    if isinstance(given, InstrumentHandle):
        names = ", ".join(f"lab.{given.id}.{name}" for name in given.axes)
        hint = f"name one of its axes: {names}" if names else "it has no axes; `axes` in its stanza names them"
        raise TypeError(f"a scan moves an axis, and lab.{given.id} is an instrument; {hint}")
    raise TypeError(f"a scan moves an axis such as lab.stage.x (without quotes); {given!r} is none")


def positions_of(axis: AxisHandle, given: Any) -> list[float]:
    """Numbers in a list, in the axis's unit; TypeError for anything else."""
    wanted = "the positions of a scan are numbers in a list, such as [2.0, 2.5]"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{wanted}; {given!r} is none")
    try:
        return [number_in(axis.unit, one) for one in cast("Iterable[Any]", given)]
    except TypeError as error:
        raise TypeError(f"{wanted}; {error}") from error.__cause__


def instruments_of(given: Any) -> list[InstrumentHandle]:
    """One instrument or several, as a list; TypeError for anything else."""
    wanted = "a scan reads instruments, such as read=[lab.dmm]"
    if isinstance(given, InstrumentHandle):
        return [given]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{wanted}; {given!r} is none")
    found: list[Any] = list(cast("Iterable[Any]", given))
    if wrong := [one for one in found if not isinstance(one, InstrumentHandle)]:
        raise TypeError(f"{wanted}; {wrong[0]!r} is none")
    return found
