from __future__ import annotations

import math
from dataclasses import dataclass, field

from duodaq.model import PollDefinition
from duodaq.v2._schedule import BackoffPolicy, PollSchedule


@dataclass(slots=True)
class PolledChannel:
    """One polled channel: when it is due, and how it has fared."""

    definition: PollDefinition
    schedule: PollSchedule
    kind: str = "scalar"
    unit: str = ""
    done: int = 0
    failed: int = 0
    failing: int = 0
    not_before_s: float = -math.inf
    message: str = ""

    @property
    def due_s(self) -> float:
        """When it is read next."""
        due_s = self.schedule.due_s
        return due_s if due_s >= self.not_before_s else self.not_before_s


@dataclass(slots=True)
class Polling:
    """All polled channels of one instrument: which is due, and which are failing. Pure; the clock is the caller's."""

    definitions: tuple[PollDefinition, ...]
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    channels: dict[str, PolledChannel] = field(init=False, default_factory=dict[str, PolledChannel])
    active: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        for poll in self.definitions:
            self.channels[poll.channel] = PolledChannel(poll, PollSchedule(poll.every_s, 0.0), unit=poll.unit)

    @property
    def failing(self) -> tuple[PolledChannel, ...]:
        """The channels whose last reading failed."""
        return tuple(channel for channel in self.channels.values() if channel.failing)

    @property
    def next_due_s(self) -> float | None:
        """When the next reading is due; None while nothing is acquired."""
        if not self.active or not self.channels:
            return None
        return min(channel.due_s for channel in self.channels.values())

    def expect(self, units: dict[str, str]) -> None:
        """Take each channel's unit as stanza or driver tell it, where nothing has been read yet."""
        for name, unit in units.items():
            self.channels[name].unit = self.channels[name].unit or unit

    def begin(self, now_s: float) -> None:
        """Acquire from now on; the first reading of every channel is due at once."""
        self.active = True
        for channel in self.channels.values():
            channel.schedule.begin(now_s)
            channel.not_before_s = -math.inf

    def end(self) -> None:
        """Acquire no more."""
        self.active = False

    def due(self, now_s: float) -> PolledChannel | None:
        """The channel that is most overdue at `now_s`, or None."""
        if not self.active:
            return None
        first, first_s = None, math.inf
        for channel in self.channels.values():
            due_s = channel.due_s
            if due_s <= now_s and due_s < first_s:
                first, first_s = channel, due_s
        return first

    def succeeded(self, channel: PolledChannel, now_s: float) -> None:
        """A reading came."""
        channel.done += 1
        channel.failing, channel.message, channel.not_before_s = 0, "", -math.inf
        channel.schedule.done(now_s)

    def failed(self, channel: PolledChannel, now_s: float, message: str) -> None:
        """A reading failed: the first time the next one comes as usual, then later and later."""
        channel.failed += 1
        channel.failing += 1
        channel.message = message
        channel.schedule.done(now_s)
        if channel.failing > 1:
            channel.not_before_s = now_s + self.backoff.delay_s(channel.failing - 1)

    def forgive(self) -> None:
        """Forget earlier failures: the driver has been connected anew."""
        for channel in self.channels.values():
            channel.failing, channel.message, channel.not_before_s = 0, "", -math.inf
