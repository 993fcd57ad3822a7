"""The manager's side of the watchdog: it starts the process, tells it of lines and workers, and keeps it alive."""

from duodaq.watchdog.owner._plan import PortPlan, plan_for
from duodaq.watchdog.owner._watchdog import Disarmed, Watchdog

__all__ = ["Disarmed", "PortPlan", "Watchdog", "plan_for"]
