"""Alarms: what a channel may not do, watched in the manager, and who is told when it does."""

from duodaq.alarms._alarms import Alarms
from duodaq.alarms._machine import Machine
from duodaq.alarms._messenger import Messenger, Notice

__all__ = ["Alarms", "Machine", "Messenger", "Notice"]
