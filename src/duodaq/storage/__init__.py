"""Recordings: one Arrow IPC stream a channel, and a page that says what they are."""

from duodaq.storage._recorder import Recorder, RecordingSummary

__all__ = ["Recorder", "RecordingSummary"]
