"""What becomes of what a dead worker had, as pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

from duodaq.model import (
    Cause,
    Command,
    Fate,
    InstrumentDefinition,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.v2 import settings_for_reconnect
from duodaq.workers._hosting import may_move_if_unknown

Readings = dict[str, dict[str, Any]]
"""Instrument → setting → value."""


class WorkerDiedError(Exception):
    """The worker died before it answered; `begun` says whether the command was in hand, or may have been."""

    def __init__(self, begun: bool, cause: str) -> None:
        super().__init__(cause)
        self.begun = begun


class Household(Protocol):
    """A worker and those who live in it."""

    name: str
    definitions: dict[str, InstrumentDefinition]


def lived_there(group: Household) -> dict[str, Any]:
    """Whom a line of the log about a worker is about."""
    return {"worker": group.name, "instruments": [*group.definitions]}


class AskPolicy(StrEnum):
    """The values of an instrument's option ``on_reconnect``: what of its settings a new driver applies by itself."""

    PASSIVE = "passive"
    REAPPLY = "reapply"
    WITHHOLD = "withhold"
    ASK = "ask"


def fate_after_death(
    begun: bool, command: Command, definition: InstrumentDefinition, *, streams: bool = True
) -> Fate | None:
    """The fate of a command whose worker died before it was answered; None: the replacement carries it out.

    One in hand is unknown, and is never repeated. One that waited goes on, unless it may move or emit: that is not
    done, because the world has changed under it, except where the stanza says ``requeue``. `streams` says whether the
    acquisition of an actor that is not known here moves or emits.
    """
    if begun:
        return Fate.UNKNOWN
    if may_move_if_unknown(definition, command, streams=streams) and not definition.options.get("requeue", False):
        return Fate.NOT_DONE
    return None


def waits_for_replacement(command: Command, definition: InstrumentDefinition, *, streams: bool = True) -> bool:
    """Whether a command that comes while its worker is being replaced waits for that; others are not done."""
    return fate_after_death(False, command, definition, streams=streams) is None


@dataclass(slots=True)
class Remembered:
    """What an instrument was asked for so far, as its next driver has to know it.

    `acquiring` is what StartAcquisition was last given, False after StopAcquisition, None before either. `waiting` are
    settings that wait for somebody's Recover; `doubtful` those of which nobody knows what they are now; `stopped` those
    that a stop may have undone, and nobody has set since. A reset lets things move again; it sets nothing.
    """

    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    acquiring: dict[str, Any] | Literal[False] | None = None
    waiting: dict[str, Any] = field(default_factory=dict[str, Any])
    doubtful: set[str] = field(default_factory=set[str])
    stopped: set[str] = field(default_factory=set[str])

    def note(self, command: Command) -> None:
        """A command has been done."""
        if isinstance(command, SetParameter):
            self.settings[command.name] = command.value
            self.doubtful.discard(command.name)
            self.stopped.discard(command.name)
            self.waiting.pop(command.name, None)
        elif isinstance(command, StartAcquisition):
            self.acquiring = dict(command.options)
        elif isinstance(command, StopAcquisition):
            self.acquiring = False

    def note_stop(self, definition: InstrumentDefinition, *, streams: bool) -> None:
        """All of it has been stopped, or is about to be; `streams` says that its acquisition moves or emits."""
        self.stopped |= definition.settings.keys() | self.settings.keys()
        if streams:
            self.acquiring = False  # what was stopped does not begin again by itself

    def doubt(self, command: Command) -> None:
        """A command may have been done, or not."""
        if isinstance(command, SetParameter):
            self.doubtful.add(command.name)


def has_crash_action(definition: InstrumentDefinition) -> bool:
    """Whether something is done to make it safe when its worker dies."""
    action = definition.safe.get(Cause.CRASH)
    return action is not None and action.kind != "hold"


def definition_for_replacement(
    definition: InstrumentDefinition, known: Remembered, *, latched: bool
) -> tuple[InstrumentDefinition, list[str]]:
    """The stanza that a replacement is given, and the names of the settings that it is not given.

    Applied are the stanza's settings and those set since, by the policy of its option ``on_reconnect``: "passive" (the
    default) withholds what was set since and may move or emit; "reapply" withholds nothing, "withhold" everything;
    "ask" too, until somebody says Recover. While a stop is latched nothing that may move or emit is applied. After a
    crash action the default withholds that too, until somebody says Recover: what was made safe stays so. What was
    asked last without an answer is applied by no policy if it may move or emit: it may be in force already. Nor is what
    was last set before a stop, also one that was reset: it waits for somebody's Recover.
    """
    wanted = {**definition.settings, **known.settings}
    policy = AskPolicy(definition.options.get("on_reconnect", AskPolicy.PASSIVE))
    if policy in (AskPolicy.ASK, AskPolicy.WITHHOLD):
        again, withheld = dict[str, Any](), list(wanted)
        known.waiting = wanted if policy is AskPolicy.ASK else {}
    elif definition.runtime == "v4":  # an actor knows itself which of its settings emit, and leaves those out
        again, withheld = wanted, list[str]()
    else:
        made_safe = policy is AskPolicy.PASSIVE and has_crash_action(definition)
        again, withheld = settings_for_reconnect(
            definition, known.settings, latched=latched or made_safe, undone=known.doubtful | known.stopped
        )
        by_policy, _ = settings_for_reconnect(definition, known.settings, latched=False)
        waits = {*by_policy, *(definition.settings if made_safe else ())} - known.doubtful
        known.waiting = {name: wanted[name] for name in withheld if name in waits}
    options = dict(definition.options)
    if known.acquiring is not None:
        options["acquire"] = False if known.acquiring is False else known.acquiring or True
    return replace(definition, settings=again, options=options), withheld


def differences(definition: InstrumentDefinition, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The settings that are watched and are now something else than they were, with what they are now.

    What a method of the driver has set is nowhere written down, so no replacement can be given it. What is polled
    changes by nature.
    """
    polled = {poll.read for poll in definition.polls}
    names = {*definition.watched, *definition.settings} - polled
    return {
        name: after[name]
        for name in sorted(names & before.keys() & after.keys())
        if repr(after[name]) != repr(before[name])
    }
