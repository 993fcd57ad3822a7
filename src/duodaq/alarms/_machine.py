"""One alarm as a pure decision over values and moments: it neither waits, nor knows a clock, nor tells anybody.

The rules that whoever edits this must keep:

* Something is *wrong* from the first value that says so; it *counts* when it has been wrong for the delay. Staleness
  has a time of its own, and counts at once.
* Hysteresis is for `low` and `high`: who was beyond one is wrong until the value has come back by that much.
* While something counts, the words are of the value now; once it is over they are of the worst there was.
* A value that is no number (NaN) is no value: it ends nothing, and does not make the channel less stale.
* An acknowledgement is for what counts at that moment; anything else that begins to count raises the alarm again,
  until that is over: what is left is known, and by whom.
* What latches leaves `raised` by an acknowledgement alone.
* An alarm that cannot be evaluated (a unit that does not fit) counts at once: it must not pass for a quiet one.
"""

from __future__ import annotations

import math

from duodaq.model import AlarmChange, AlarmDefinition, AlarmState, AlarmStatus

HIGH, LOW, RATE, STALE, UNUSABLE = "high", "low", "rate", "stale", "unusable"
_AT_ONCE = frozenset({STALE, UNUSABLE})
_NS = 1_000_000_000


class Machine:
    """The state of one alarm.

    Args:
        definition: What is wrong when.
        begun_ns: Since when it is watched, UTC.
    """

    def __init__(self, definition: AlarmDefinition, begun_ns: int) -> None:
        self.definition = definition
        self.state = AlarmState.NORMAL
        self.raised = 0
        self._delay_ns = round(definition.delay_s * _NS)
        self._wrong: dict[str, int] = {}
        self._words: dict[str, str] = {}
        self._worst: dict[str, tuple[float, str]] = {}
        self._counted: set[str] = set()
        self._known: frozenset[str] = frozenset()
        self._value: float | None = None
        self._value_ns = 0
        self._heard_ns = self._now_ns = self._since_ns = begun_ns
        self._unit = definition.unit or ""
        self._why = self._by = self._known_by = ""

    def value(self, t_ns: int, value: float, unit: str = "") -> AlarmChange | None:
        """Take a value, in the alarm's unit; the change that it makes, if any.

        Args:
            t_ns: When it was measured, UTC.
            value: The value.
            unit: What its unit is called.
        """
        self._now_ns = max(self._now_ns, t_ns)
        if math.isnan(value):
            return self._settle()
        self._unit = unit or self._unit
        self._heard_ns = max(self._heard_ns, t_ns)
        self._note(STALE, False, t_ns)
        self._note(UNUSABLE, False, t_ns)
        self._compare(t_ns, value)
        self._value, self._value_ns = value, t_ns
        return self._settle()

    def tick(self, now_ns: int) -> AlarmChange | None:
        """Time has passed; the change that it makes, if any."""
        self._now_ns = max(self._now_ns, now_ns)
        stale_s = self.definition.stale_s
        if stale_s is not None and self._now_ns - self._heard_ns > stale_s * _NS:
            self._note(STALE, True, self._now_ns, f"no value for {stale_s:g} s")
        return self._settle()

    def unusable(self, t_ns: int, why: str) -> AlarmChange | None:
        """It cannot be evaluated, because of `why`; the change that this makes, if any."""
        self._now_ns = max(self._now_ns, t_ns)
        self._heard_ns = max(self._heard_ns, t_ns)
        self._note(UNUSABLE, True, t_ns, why)
        return self._settle()

    def usable(self, t_ns: int) -> AlarmChange | None:
        """What `unusable` said is over, and there is no value; the change that this makes, if any."""
        self._now_ns = max(self._now_ns, t_ns)
        self._note(UNUSABLE, False, t_ns)
        return self._settle()

    def acknowledge(self, now_ns: int, by: str) -> AlarmChange | None:
        """Somebody knows; the change that this makes, None if there was nothing to acknowledge."""
        self._now_ns = max(self._now_ns, now_ns)
        if self.state not in (AlarmState.RAISED, AlarmState.RETURNED):
            return None
        self._known = frozenset(self._counting())
        self._by = self._known_by = by
        return self._enter(AlarmState.ACKNOWLEDGED if self._known else self._calm(), by)

    def status(self) -> AlarmStatus:
        """What is known of it now."""
        one = self.definition
        return AlarmStatus(
            name=one.name,
            instrument=one.instrument,
            channel=one.channel,
            state=self.state,
            why=self._why,
            value=self._value,
            unit=self._unit,
            value_ns=self._value_ns,
            since_ns=self._since_ns,
            raised=self.raised,
            by=self._by,
            latch=one.latch,
            pause_scan=one.pause_scan,
            stop_all=one.stop_all,
            note=one.note,
        )

    def _compare(self, t_ns: int, value: float) -> None:
        one, unit = self.definition, f" {self._unit}".rstrip()
        if one.high is not None:
            self._limit(HIGH, t_ns, value, one.high, one.high - one.hysteresis, unit)
        if one.low is not None:
            self._limit(LOW, t_ns, value, one.low, one.low + one.hysteresis, unit)
        if one.rate is not None and self._value is not None and t_ns > self._value_ns:
            rate = (value - self._value) / ((t_ns - self._value_ns) / _NS)
            too_fast = not abs(rate) <= one.rate  # of two infinite values it is no number, and wrong
            said = f"it changes by {rate:g}{unit or ' '}/s, faster than {one.rate:g}{unit or ' '}/s"
            self._note(RATE, too_fast, t_ns, said, math.inf if math.isnan(rate) else abs(rate))

    def _limit(self, condition: str, t_ns: int, value: float, limit: float, back: float, unit: str) -> None:
        """Compare with `limit` and, for what was beyond it, with `back`, where that is over."""
        sign, beyond, within = (1, "above", "below") if condition == HIGH else (-1, "below", "above")
        is_beyond = value * sign > limit * sign
        words = f"{value:g}{unit} is {beyond} {limit:g}{unit}"
        if not is_beyond:
            words = f"{value:g}{unit} is not yet {within} {back:g}{unit} after it was {beyond} {limit:g}{unit}"
        wrong = is_beyond or (condition in self._wrong and value * sign > back * sign)
        self._note(condition, wrong, t_ns, words, value * sign)

    def _note(self, condition: str, wrong: bool, t_ns: int, words: str = "", size: float = 0.0) -> None:
        if not wrong:
            self._wrong.pop(condition, None)
            self._words.pop(condition, None)
            if condition not in self._counted:
                self._worst.pop(condition, None)
            return
        self._wrong.setdefault(condition, t_ns)
        self._words[condition] = words
        if condition not in self._worst or size >= self._worst[condition][0]:
            self._worst[condition] = (size, words)

    def _counting(self) -> list[str]:
        """What is wrong, and has been for long enough."""
        return [c for c, t_ns in self._wrong.items() if c in _AT_ONCE or self._now_ns - t_ns >= self._delay_ns]

    def _settle(self) -> AlarmChange | None:
        counting = self._counting()
        if not counting:
            self._known = frozenset()
            if self._counted:
                self._why = "; ".join(
                    self._worst[condition][1] for condition in self._worst if condition in self._counted
                )
            latched = self.definition.latch and self.state in (AlarmState.RAISED, AlarmState.RETURNED)
            return self._enter(AlarmState.RETURNED if latched else self._calm())
        self._known &= frozenset(counting)
        self._counted.update(counting)
        self._why = "; ".join(self._words[condition] for condition in counting)
        latched = self.definition.latch and self.state is AlarmState.RAISED
        if self._known != frozenset(counting) or latched:
            return self._enter(AlarmState.RAISED)
        self._by = self._known_by
        return self._enter(AlarmState.ACKNOWLEDGED, self._by)

    def _calm(self) -> AlarmState:
        return AlarmState.PENDING if self._wrong else AlarmState.NORMAL

    def _enter(self, state: AlarmState, by: str = "") -> AlarmChange | None:
        old, why = self.state, self._why
        if state is old:
            return None
        self.state, self._since_ns = state, self._now_ns
        if state in (AlarmState.PENDING, AlarmState.NORMAL):
            self._counted.clear()
            self._worst = {condition: worst for condition, worst in self._worst.items() if condition in self._wrong}
        if state is AlarmState.RAISED:
            self.raised += 1
            self._by = ""
        elif state is AlarmState.PENDING:
            why = self._why = "; ".join(self._words.values())
        elif state is AlarmState.NORMAL:
            self._why = ""
        return AlarmChange(self.definition.name, old, state, why, self._now_ns, self._value, self._unit, by)
