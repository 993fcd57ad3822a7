"""V2, the classic runtime: unmodified blocking drivers, each in a thread of its own, behind one manager task."""

from duodaq.v2._command import (
    AddInstrument,
    GetAvailableChannels,
    GetInstrumentList,
    GetMetrics,
    RemoveInstrument,
    RestartInstrument,
    SendInstrumentCommand,
    Shutdown,
    SpawnInstrument,
    StartRecording,
    StopInstrument,
    StopRecording,
    Subscribe,
    V2Command,
)
from duodaq.v2._distributor import DataDistributor
from duodaq.v2._manager import RecorderPromise
from duodaq.v2._member import Member
from duodaq.v2._publisher import Sequences
from duodaq.v2._rules import may_move, own_deadline_s, settings_for_reconnect
from duodaq.v2._runtime import V2Runtime

__all__ = [
    "AddInstrument",
    "DataDistributor",
    "GetAvailableChannels",
    "GetInstrumentList",
    "GetMetrics",
    "Member",
    "RecorderPromise",
    "RemoveInstrument",
    "RestartInstrument",
    "SendInstrumentCommand",
    "Sequences",
    "Shutdown",
    "SpawnInstrument",
    "StartRecording",
    "StopInstrument",
    "StopRecording",
    "Subscribe",
    "V2Command",
    "V2Runtime",
    "may_move",
    "own_deadline_s",
    "settings_for_reconnect",
]
