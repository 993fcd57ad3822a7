"""An alarm as a state machine: whatever comes, and however long nothing does."""

from __future__ import annotations

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from duodaq.alarms import Machine
from duodaq.model import AlarmDefinition, AlarmState

NS = 1_000_000_000
BAD = (AlarmState.RAISED, AlarmState.ACKNOWLEDGED)

definitions = st.builds(
    AlarmDefinition,
    name=st.just("a"),
    instrument=st.just("i"),
    channel=st.just("c"),
    low=st.none() | st.integers(-6, -3),
    high=st.none() | st.integers(3, 6),
    rate=st.none() | st.integers(1, 20),
    stale_s=st.none() | st.integers(1, 5),
    hysteresis=st.integers(0, 4),
    delay_s=st.integers(0, 4),
    latch=st.booleans(),
)
values = st.integers(-9, 9) | st.sampled_from([math.nan, math.inf, -math.inf])
steps = st.one_of(
    st.tuples(st.just("value"), st.integers(0, 3), values),
    st.tuples(st.just("tick"), st.integers(0, 6), st.none()),
    st.tuples(st.just("acknowledge"), st.integers(0, 1), st.none()),
)


class Reference:
    """Says of a history, by looking through all of it each time, what counts now."""

    def __init__(self, one: AlarmDefinition) -> None:
        self.one = one
        self.values: list[tuple[int, float]] = []
        self.ticks: list[int] = []

    def counting(self, now_ns: int) -> set[str]:
        one, found = self.one, set[str]()
        for name, out, back in (
            ("high", lambda v: v > one.high, lambda v: v <= one.high - one.hysteresis),
            ("low", lambda v: v < one.low, lambda v: v >= one.low + one.hysteresis),
        ):
            if getattr(one, name) is None:
                continue
            since: int | None = None
            for t_ns, value in self.values:
                if since is None and out(value):
                    since = t_ns
                elif since is not None and back(value):
                    since = None
            if since is not None and now_ns - since >= one.delay_s * NS:
                found.add(name)
        if one.rate is not None:
            since = None
            for (t0, v0), (t1, v1) in zip(self.values, self.values[1:], strict=False):
                if t1 > t0:
                    fast = not abs((v1 - v0) / ((t1 - t0) / NS)) <= one.rate
                    since = (since if since is not None else t1) if fast else None
            if since is not None and now_ns - since >= one.delay_s * NS:
                found.add("rate")
        heard = self.values[-1][0] if self.values else 0
        if one.stale_s is not None and any(t - heard > one.stale_s * NS for t in self.ticks):
            found.add("stale")
        return found


_ONE_MORE_THING = [("value", 0, 9.0), ("acknowledge", 0, None), ("tick", 2, None), ("value", 0, 9.0)]


@settings(max_examples=150)
@example(AlarmDefinition("a", "i", "c", high=3, stale_s=1), _ONE_MORE_THING)
@example(AlarmDefinition("a", "i", "c", high=3, stale_s=1, latch=True), _ONE_MORE_THING)
@given(definitions, st.lists(steps, max_size=25))
def test_an_alarm_is_raised_exactly_while_something_counts_and_latches_until_acknowledged(
    one: AlarmDefinition, history: list[tuple[str, int, float | None]]
) -> None:
    machine, reference = Machine(one, 0), Reference(one)
    now_ns, raised, known = 0, 0, set[str]()
    for kind, after_s, value in history:
        now_ns += after_s * NS
        before = machine.state
        if kind == "value":
            assert value is not None
            change = machine.value(now_ns, value)
            if not math.isnan(value):
                reference.values.append((now_ns, value))
                reference.ticks = [t for t in reference.ticks if t > now_ns]
        elif kind == "tick":
            reference.ticks.append(now_ns)
            change = machine.tick(now_ns)
        else:
            counted = reference.counting(now_ns)
            change = machine.acknowledge(now_ns, "somebody")
            if before in (AlarmState.RAISED, AlarmState.RETURNED):
                known = counted
                assert machine.state not in (AlarmState.RAISED, AlarmState.RETURNED)
            else:
                assert change is None
        if kind != "acknowledge":
            counted = reference.counting(now_ns)
            known &= counted
            assert (machine.state in BAD) == bool(counted), (machine.state, counted)
            if counted:
                stays = one.latch and before is AlarmState.RAISED  # until somebody says so
                expected = AlarmState.ACKNOWLEDGED if known == counted and not stays else AlarmState.RAISED
                assert machine.state is expected
            elif before in (AlarmState.RAISED, AlarmState.RETURNED):
                assert (machine.state is AlarmState.RETURNED) == one.latch
        assert (change is None) == (machine.state is before)
        if change is not None:
            assert (change.old, change.new, change.t_ns) == (before, machine.state, now_ns)
            raised += change.new is AlarmState.RAISED
        assert machine.status().raised == raised
        assert machine.status().state is machine.state
