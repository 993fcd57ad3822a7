"""Last actions when everything else is dead: a small process beside the manager, and the way to it past the manager.

This package is the process itself (``python -m duodaq.watchdog``) and what a program needs to ask it for a stop-all; it
loads the standard library alone. `duodaq.watchdog.owner` is the manager's side, which starts it and tells it things.
"""

from duodaq.watchdog._ask import ask_watchdog_to_stop_all

__all__ = ["ask_watchdog_to_stop_all"]
