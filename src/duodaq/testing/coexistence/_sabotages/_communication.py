"""What may go wrong between two runtimes that talk both ways without anybody noticing by itself."""

# A sabotage reaches into the parts whose work it spoils, and stands in for methods whose types do not matter to it.
# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from duodaq.bridge import _bridge
from duodaq.bridge._lane import Lane
from duodaq.clock import pause
from duodaq.dataplane import Policy, Subscription
from duodaq.dataplane._slot import Slot
from duodaq.testing.coexistence._sabotage import sabotage

_BOTH = "test_bidirectional_communication_channel"


@sabotage(_BOTH, "back-pressure")
def full_queues_take_one_more() -> None:
    """A reader that may lose nothing has room without end."""
    slot: Any = Slot
    original = slot.fits

    def fits(self: Any, size: int) -> bool:
        if self.policy is Policy.BLOCK:
            self.capacity = 1_000_000
        return original(self, size)

    slot.fits = fits


@sabotage(_BOTH, "both at once")
def one_direction_after_the_other() -> None:
    """What V4 produced waits until V2's has been quiet for a while."""
    lane: Any = Lane
    original = lane._publish
    busy: list[float] = [0.0]

    async def publish(self: Any, item: Any) -> Any:
        if "v2→v4" in self.name:
            busy[0] += 1
            return await original(self, item)
        seen = -1.0
        while seen != busy[0]:
            seen = busy[0]
            await pause(0.05)
        return await original(self, item)

    lane._publish = publish


@sabotage(_BOTH, "no loss")
def some_are_lost_on_the_bridge() -> None:
    """Every fiftieth reading is not carried over."""
    wanted = _bridge._not_of_v4
    _bridge._not_of_v4 = lambda measurement: wanted(measurement) and measurement.sequence % 50 != 49


@sabotage(_BOTH, "unchanged")
def readings_are_delivered_backwards() -> None:
    """Within a batch the newest comes first."""
    original: Any = _bridge.measurement_batch
    _bridge.measurement_batch = lambda rows, origin=None: original(list(reversed(rows)), origin)


@sabotage(_BOTH, "exact drops")
def some_drops_are_not_told() -> None:
    """A slow reader is told of nine losses in ten."""
    subscription: Any = Subscription
    original = subscription.take_missed
    subscription.take_missed = lambda self: int(original(self) * 0.9)


@sabotage(_BOTH, "exact drops")
def the_newest_is_dropped() -> None:
    """A full queue keeps what is old, whatever its policy says."""
    slot: Any = Slot
    original = slot._make_room
    slot._make_room = lambda self, size: False if self.policy is Policy.DROP_OLDEST else original(self, size)
