"""Decisions about one stanza, as pure functions: deadlines, what moves, what is set again."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from duodaq.model import (
    Command,
    Execute,
    InstrumentDefinition,
    ReadChannel,
    Recover,
    SetParameter,
    command_name,
    is_polled_call,
)

CONNECT_S = 10.0


def deadline_s(definition: InstrumentDefinition, *names: str) -> float | None:
    """The deadline of a call under any of its `names`: the method's own, else the instrument's; None for never."""
    for name in names:
        if name in definition.method_deadline_s:
            return definition.method_deadline_s[name]
    return definition.deadline_s


def connect_deadline_s(definition: InstrumentDefinition) -> float | None:
    """How long loading, constructing and setting up the driver may take."""
    return definition.method_deadline_s.get("connect", CONNECT_S)


def own_deadline_s(definition: InstrumentDefinition, command: Command) -> float | None:
    """The deadline of a command that was sent without one; None for never."""
    if isinstance(command, Recover):
        return connect_deadline_s(definition)
    if not definition.method_deadline_s:
        return definition.deadline_s
    if isinstance(command, ReadChannel):
        polls = [p for p in definition.polls if p.channel == command.channel]
        return deadline_s(definition, *(name for p in polls for name in (p.call, p.read) if name), command.channel)
    return deadline_s(definition, command_name(command))


def is_passive(definition: InstrumentDefinition, command: Execute) -> bool:
    """Whether the call neither moves nor emits; what is polled does not, as it is polled."""
    if isinstance(definition.passive, bool):
        return definition.passive
    return command.name in definition.passive or is_polled_call(definition, command)


def is_safe_action(definition: InstrumentDefinition, command: Execute) -> bool:
    """Whether `command` is what the stanza calls to make the instrument safe, with exactly these arguments."""
    return not command.kwargs and any(
        action.kind == "call" and (action.call, action.args) == (command.name, command.args)
        for action in definition.safe.values()
    )


def may_move(definition: InstrumentDefinition, command: Command) -> bool:
    """Whether `command` may move or emit: setting and calling do unless they are passive; reading never does.

    The stanza's own safe action does not either: it must get through while a stop is latched.
    """
    if isinstance(command, Execute):
        return not (is_passive(definition, command) or is_safe_action(definition, command))
    if isinstance(command, SetParameter):
        passive = definition.passive
        return not (passive if isinstance(passive, bool) else command.name in passive)
    return False


def settings_for_reconnect(
    definition: InstrumentDefinition, asked: dict[str, Any], *, latched: bool, undone: Set[str] = frozenset()
) -> tuple[dict[str, Any], list[str]]:
    """Which settings are applied again after a reconnection, and the names of those that are withheld.

    Applied are those that the stanza gives, and those asked for since that are passive; so a device that lost its power
    never begins to move or emit because its driver came back. The stanza's option ``on_reconnect`` says otherwise:
    "reapply" all, or "withhold" all. While a stop is latched only passive ones are applied, and always of those in
    `undone`, which a stop, or a call without an answer, may have undone.
    """
    policy = definition.options.get("on_reconnect", "passive")
    again: dict[str, Any] = {}
    withheld: list[str] = []
    for name, value in {**definition.settings, **asked}.items():
        passive = not may_move(definition, SetParameter(name, value))
        as_given = name in definition.settings and definition.settings[name] == value
        wanted = policy == "reapply" or (policy == "passive" and (passive or as_given))
        if wanted and (passive or not (latched or name in undone)):
            again[name] = value
        else:
            withheld.append(name)
    return again, withheld
