"""What can be said of a command at the manager, without asking the worker in which it will be carried out."""

from __future__ import annotations

from duodaq import v2, v4
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    ReadChannel,
    SetParameter,
    StartAcquisition,
)

HUNG_AFTER_S = 1.0
"""A worker whose loop owes the beginning of a call for so long is hung, and so are the instruments in it."""


def deadline_of(definition: InstrumentDefinition, command: Command, deadline_s: float | None) -> float | None:
    """The time within which the worker will have spoken of a command; None if that is not known here.

    An actor's operations end by limits of their own; if its loop does not answer, the worker's own hang is noticed.
    """
    if deadline_s is not None:
        return deadline_s
    if definition.runtime == "v2":
        return v2.own_deadline_s(definition, command)
    return definition.deadline_s if isinstance(command, GetParameter | ReadChannel) else None


def may_move_if_unknown(definition: InstrumentDefinition, command: Command, *, streams: bool = True) -> bool:
    """Whether a command may move or emit; where that is not known here, setting and calling do, acquiring if `streams`.

    What an actor's acquisition does its worker tells; until it has, the cautious answer is that it emits.
    """
    if is_known(definition):
        return moves_as_far_as_known(definition, command)
    return isinstance(command, SetParameter | Execute) or (streams and isinstance(command, StartAcquisition))


def is_known(definition: InstrumentDefinition) -> bool:
    """Whether it can be said here what its commands do: of an actor from a file or a package only its worker can."""
    known = not isinstance(definition.driver, str) or definition.driver in v4.BUILT_IN
    return definition.runtime == "v2" or known


def moves_as_far_as_known(definition: InstrumentDefinition | None, command: Command) -> bool:
    """Whether a command may move or emit; of an unknown instrument the cautious answer.

    Of an actor whose class is not loaded here: no. Its worker, which has been told of every stop before the command
    comes to it, asks the class itself.
    """
    if definition is None:
        return True
    if definition.runtime == "v2":
        return v2.may_move(definition, command)
    driver = definition.driver
    kind = v4.BUILT_IN.get(driver) if isinstance(driver, str) else driver
    return isinstance(kind, type) and hasattr(kind, "message_for") and v4.may_move(kind, definition, command)
