"""A recorded instrument served again: from a wire log to a simulator that answers by content and state."""

from duodaq.sim.replay._instrument import ReplayedInstrument, UnknownPolicy
from duodaq.sim.replay._launch import ReplayProcess, launch_replay
from duodaq.sim.replay._matching import AtEnd, Matcher
from duodaq.sim.replay._rebuild import Command, rebuild
from duodaq.sim.replay._serve import Replay, speed_of

__all__ = [
    "AtEnd",
    "Command",
    "Matcher",
    "Replay",
    "ReplayProcess",
    "ReplayedInstrument",
    "UnknownPolicy",
    "launch_replay",
    "rebuild",
    "speed_of",
]
