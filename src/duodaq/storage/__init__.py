"""Recordings: the journal of a run and its repair, and the wire log of the ports."""

from duodaq.storage._recorder import OnFailure, Recorder, WhenFull
from duodaq.storage._turn import RecordingSummary
from duodaq.storage._watermark import Watermark
from duodaq.storage._wire_recorder import WireRecorder, WireSummary
from duodaq.storage.journal import Gap, JournalReader, Level, Recovery, edit_labels, recover, unfinished_runs

__all__ = [
    "Gap",
    "JournalReader",
    "Level",
    "OnFailure",
    "Recorder",
    "RecordingSummary",
    "Recovery",
    "Watermark",
    "WhenFull",
    "WireRecorder",
    "WireSummary",
    "edit_labels",
    "recover",
    "unfinished_runs",
]
