"""Recorded runs, to read: finished, growing or left behind by a crash.

Names are resolved when they are first used: a lab that records reads nothing, and loads none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.storage.reading._card import counted
    from duodaq.storage.reading._columns import Column, Named
    from duodaq.storage.reading._frames import FrameStack
    from duodaq.storage.reading._labels import Labels
    from duodaq.storage.reading._listing import Difference, Runs, differences, facts_of, find_run, open_run, runs
    from duodaq.storage.reading._outages import Outage
    from duodaq.storage.reading._place import is_run
    from duodaq.storage.reading._points import Grid, Laid, ScanPoints, stacked, told_with
    from duodaq.storage.reading._run import Run
    from duodaq.storage.reading._scan import RecordedScan
    from duodaq.storage.reading._scan_events import SCAN_CONTINUED, SCAN_DOCUMENT
    from duodaq.storage.reading._scan_page import scan_page
    from duodaq.storage.reading._series import Series, SeriesStream, folder_bytes, of_series
    from duodaq.storage.reading._stream import Stream

__all__ = [
    "SCAN_CONTINUED",
    "SCAN_DOCUMENT",
    "Column",
    "Difference",
    "FrameStack",
    "Grid",
    "Labels",
    "Laid",
    "Named",
    "Outage",
    "RecordedScan",
    "Run",
    "Runs",
    "ScanPoints",
    "Series",
    "SeriesStream",
    "Stream",
    "counted",
    "differences",
    "facts_of",
    "find_run",
    "folder_bytes",
    "is_run",
    "of_series",
    "open_run",
    "runs",
    "scan_page",
    "stacked",
    "told_with",
]

_HOMES = {
    "SCAN_CONTINUED": "duodaq.storage.reading._scan_events",
    "SCAN_DOCUMENT": "duodaq.storage.reading._scan_events",
    "Column": "duodaq.storage.reading._columns",
    "Difference": "duodaq.storage.reading._listing",
    "FrameStack": "duodaq.storage.reading._frames",
    "Grid": "duodaq.storage.reading._points",
    "Labels": "duodaq.storage.reading._labels",
    "Laid": "duodaq.storage.reading._points",
    "Named": "duodaq.storage.reading._columns",
    "Outage": "duodaq.storage.reading._outages",
    "RecordedScan": "duodaq.storage.reading._scan",
    "Run": "duodaq.storage.reading._run",
    "Runs": "duodaq.storage.reading._listing",
    "ScanPoints": "duodaq.storage.reading._points",
    "Series": "duodaq.storage.reading._series",
    "SeriesStream": "duodaq.storage.reading._series",
    "Stream": "duodaq.storage.reading._stream",
    "counted": "duodaq.storage.reading._card",
    "differences": "duodaq.storage.reading._listing",
    "facts_of": "duodaq.storage.reading._listing",
    "find_run": "duodaq.storage.reading._listing",
    "folder_bytes": "duodaq.storage.reading._series",
    "is_run": "duodaq.storage.reading._place",
    "of_series": "duodaq.storage.reading._series",
    "open_run": "duodaq.storage.reading._listing",
    "runs": "duodaq.storage.reading._listing",
    "scan_page": "duodaq.storage.reading._scan_page",
    "stacked": "duodaq.storage.reading._points",
    "told_with": "duodaq.storage.reading._points",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
