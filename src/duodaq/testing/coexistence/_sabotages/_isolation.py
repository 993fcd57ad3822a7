# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# A sabotage reaches where it hurts, and what it puts there is of no declared type.
"""What lets trouble in one runtime reach the other, or keeps it for good."""

from __future__ import annotations

from typing import Any

from duodaq import clock
from duodaq.dual import _side
from duodaq.dual._placement import Group
from duodaq.model import Measurement
from duodaq.testing.coexistence._sabotage import APART, FROM_THREADS, ON_ONE_LOOP, SHARED, sabotage
from duodaq.testing.coexistence._sabotages._commands import around_commands
from duodaq.v2 import _instrument
from duodaq.v2._calls import DriverCalls
from duodaq.v2._host import DriverHost
from duodaq.v2._publisher import ReadingPublisher
from duodaq.v2._schedule import Reconnection
from duodaq.v4 import GiveUp, Restart, RestartPolicy
from duodaq.v4.instruments._streams import Streams
from duodaq.workers import ProcessGroup, _process_group

_IN_V2 = "test_v2_error_does_not_crash_v4"
_IN_V4 = "test_v4_error_does_not_crash_v2"


@sabotage(_IN_V2, "v4 loses nothing")
def a_batch_now_and_then_is_forgotten() -> None:
    """V4 forgets every twentieth batch of rows."""
    flush, count = Streams._flush, [0]

    def forgetful(self: Streams, channel: str) -> None:
        count[0] += 1
        if count[0] % 20 == 0:
            self._waiting.pop(channel, None)
        flush(self, channel)

    Streams._flush = forgetful


@sabotage(_IN_V2, "v4 stays quick", modes=ON_ONE_LOOP)
def v2_thinks_long_about_errors() -> None:
    """V2 blocks its loop for a while over every error of a driver."""
    typed_error = _instrument.typed_error

    def thoughtful(*args: Any) -> Any:
        clock.block(0.12)
        return typed_error(*args)

    _instrument.typed_error = thoughtful


@sabotage(_IN_V2, "v2 recovers")
def lost_drivers_stay_lost() -> None:
    """V2 connects no driver anew by itself."""
    lost = Reconnection.lost
    Reconnection.lost = lambda self, now_s, *, by, recoverable: lost(self, now_s, by=by, recoverable=False)


@sabotage(_IN_V2, "handles revoked", modes=SHARED)
def hung_drivers_keep_their_handles() -> None:
    """A driver that comes back from a hang may go on writing to its port."""
    DriverHost.revoke = lambda self, reason: None


@sabotage(_IN_V2, "hung", modes=SHARED)
def nobody_calls_it_hung() -> None:
    """An instrument whose call does not return is never given up."""

    def note_overdue(self: DriverCalls, call: Any) -> None:
        if call.on_overdue is not None:
            call.on_overdue()

    DriverCalls.note_overdue = note_overdue


@sabotage(_IN_V2, "caller is freed")
def deadlines_of_v2_are_stretched() -> None:
    """Every deadline is ten times what the caller said."""
    _stretch_deadlines()


@sabotage(_IN_V4, "v2 loses nothing")
def a_reading_now_and_then_is_forgotten() -> None:
    """V2 says of every twentieth reading that it was published, and it was not."""
    offer, count = ReadingPublisher._offer, [0]

    async def forgetful(self: ReadingPublisher, measurement: Measurement) -> bool:
        count[0] += 1
        return count[0] % 20 == 0 or await offer(self, measurement)

    ReadingPublisher._offer = forgetful


@sabotage(_IN_V4, "v2 stays quick", modes=ON_ONE_LOOP)
def v4_thinks_long_about_crashes() -> None:
    """V4 blocks its loop for a while before it restarts an actor."""
    decide = RestartPolicy.decide

    def thoughtful(self: RestartPolicy, *args: Any, **kwargs: Any) -> Any:
        clock.block(0.3)
        return decide(self, *args, **kwargs)

    RestartPolicy.decide = thoughtful


@sabotage(_IN_V4, "v4 recovers")
def crashed_actors_stay_down() -> None:
    """V4 restarts nobody."""
    RestartPolicy.decide = lambda self, *args, **kwargs: GiveUp("it is not worth it")


@sabotage(_IN_V4, "restart limit")
def restarts_never_end() -> None:
    """V4 restarts an actor as often as it crashes."""
    RestartPolicy.decide = lambda self, *args, **kwargs: Restart(0.0)


@sabotage(_IN_V4, "others go on", modes=FROM_THREADS)
def own_workers_are_shared() -> None:
    """An instrument that should have a worker of its own shares that of its runtime."""
    place = _side.place

    def crowded(instrument: Any, runtime: Any) -> Group:
        group = place(instrument, runtime)
        return (
            group
            if instrument.worker != "own"
            else Group(f"{runtime.name}-{runtime.worker}", runtime.name, runtime.worker)
        )

    _side.place = crowded
    groups_of = _side.groups_of
    _side.groups_of = lambda instruments, runtime: groups_of([i for i in instruments if i.worker != "own"], runtime)


@sabotage(_IN_V4, "caller is freed")
def deadlines_of_v4_are_stretched() -> None:
    """Every deadline is ten times what the caller said."""
    _stretch_deadlines()


@sabotage(_IN_V2, "handles revoked", modes=APART)
def hung_workers_are_left_alone() -> None:
    """The process of an instrument whose call does not return is never ended."""

    async def nothing(self: ProcessGroup, worker: Any, cause: str) -> None:
        return None

    ProcessGroup._end_hung = nothing


@sabotage(_IN_V2, "v2 recovers", modes=APART)
def dead_workers_are_not_replaced() -> None:
    """What lived in a process that died stays dead."""
    _process_group.RESTARTS = RestartPolicy(limit=0, window_s=60.0)


@sabotage(_IN_V2, "v4 stays quick", modes=APART)
def the_manager_mourns_for_v2() -> None:
    """The manager blocks its loop for a while when V2's worker has died."""
    _mourn_long("v2-process")


@sabotage(_IN_V4, "v2 stays quick", modes=APART)
def the_manager_mourns_for_v4() -> None:
    """The manager blocks its loop for a while when V4's shared worker has died."""
    _mourn_long("v4-process")


def _mourn_long(name: str) -> None:
    settle = ProcessGroup._settle

    def mournful(self: ProcessGroup, *args: Any, **facts: Any) -> None:
        if self.name == name:
            clock.block(0.3)
        settle(self, *args, **facts)

    ProcessGroup._settle = mournful


def _stretch_deadlines() -> None:
    around_commands(lambda host, command: command(10.0))
