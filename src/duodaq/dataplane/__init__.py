"""Data on its way: a hub offers each item to subscriptions with a bound, a policy and exact counters.

Safe from any thread; publisher and reader may live on different event loops.
"""

from duodaq.dataplane._books import Books
from duodaq.dataplane._hub import Hub, SyncOverflow
from duodaq.dataplane._ledger import Ledger, LedgerRow
from duodaq.dataplane._policy import Alarm, AlarmKind, OccupancyAlarm, Policy
from duodaq.dataplane._slot import Figures
from duodaq.dataplane._subscription import Subscription

__all__ = [
    "Alarm",
    "AlarmKind",
    "Books",
    "Figures",
    "Hub",
    "Ledger",
    "LedgerRow",
    "OccupancyAlarm",
    "Policy",
    "Subscription",
    "SyncOverflow",
]
