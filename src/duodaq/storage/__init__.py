"""Recordings: one Arrow IPC stream a channel, a page that says what they are, and the wire log of the ports."""

from duodaq.storage._recorder import Recorder, RecordingSummary
from duodaq.storage._wire_recorder import WireRecorder, WireSummary

__all__ = ["Recorder", "RecordingSummary", "WireRecorder", "WireSummary"]
