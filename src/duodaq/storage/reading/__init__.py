"""Recorded runs, to read: finished, growing or left behind by a crash."""

from duodaq.storage.reading._card import counted
from duodaq.storage.reading._columns import Column, Named
from duodaq.storage.reading._frames import FrameStack
from duodaq.storage.reading._labels import Labels
from duodaq.storage.reading._listing import Difference, Runs, differences, facts_of, find_run, is_run, open_run, runs
from duodaq.storage.reading._points import Grid, Laid, ScanPoints, told_with
from duodaq.storage.reading._run import Run
from duodaq.storage.reading._scan import SCAN_CONTINUED, SCAN_DOCUMENT, RecordedScan
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
    "told_with",
]
