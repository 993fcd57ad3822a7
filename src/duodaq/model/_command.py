from __future__ import annotations

import numbers
from typing import Any, Literal

import msgspec

from duodaq.errors import OutOfRangeError
from duodaq.model._definition import AxisDefinition, InstrumentDefinition

TO_A_PLACE = frozenset({"move", "move_absolute"})
"""Commands of motion that say where to."""
_AIMS = ("position", "target", "value", "distance")


class SetParameter(msgspec.Struct, frozen=True, tag="set"):
    """Set `name`; the result is what the device accepted."""

    name: str
    value: Any


class GetParameter(msgspec.Struct, frozen=True, tag="get"):
    """Read `name` from the device; the result is its value.

    With `part`, what a hosted driver itself has under that name: a parameter is none, and is not read.
    """

    name: str
    part: bool = False


class DriverMember(msgspec.Struct, frozen=True, tag="member"):
    """What GetParameter answers for an attribute of a hosted driver that is no value: a method, or a part (an axis).

    A "parameter" is a part that is called to read or to set its value.
    """

    kind: Literal["method", "object", "parameter"]


class Execute(msgspec.Struct, frozen=True, tag="execute"):
    """Call the driver's method, or the actor's operation, `name`."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


class StartAcquisition(msgspec.Struct, frozen=True, tag="start"):
    """Begin the polled channels or the stream; `options` are the instrument's own (ROI, exposure …)."""

    options: dict[str, Any] = {}


class StopAcquisition(msgspec.Struct, frozen=True, tag="stop_acquisition"):
    """End what StartAcquisition began."""


class SnapFrame(msgspec.Struct, frozen=True, tag="snap"):
    """Take one frame; the result is an Image."""

    options: dict[str, Any] = {}


class ReadChannel(msgspec.Struct, frozen=True, tag="read"):
    """Take one measurement of `channel` now; it is published like any other, and is the result too."""

    channel: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Stop all that moves or emits, at once; `axis` limits it to one axis."""

    axis: str | None = None


class Recover(msgspec.Struct, frozen=True, tag="recover"):
    """Leave Error: reconnect the driver and re-apply settings as the policy says."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Close the driver. Accepted once; later commands are refused."""


Command = (
    SetParameter
    | GetParameter
    | Execute
    | StartAcquisition
    | StopAcquisition
    | SnapFrame
    | ReadChannel
    | Stop
    | Recover
    | Shutdown
)


def command_name(command: Command) -> str:
    """How errors and logs name this command: the method or parameter where there is one, else the kind."""
    if isinstance(command, SetParameter | GetParameter | Execute):
        return command.name
    if isinstance(command, ReadChannel):
        return f"read {command.channel}"
    return type(command).__name__


def is_polled_call(definition: InstrumentDefinition, command: Execute) -> bool:
    """Whether `command` is what a polled channel of a hosted driver calls, with that channel's own arguments.

    A method that reads may set what it is given.
    """
    own = (command.name, tuple(command.args))
    return not command.kwargs and any((poll.call, tuple(poll.args)) == own for poll in definition.polls)


def check_limits(definition: InstrumentDefinition, command: Command) -> None:
    """Whether a setting, or the target of a move, stays within the limits that the lab file gives it.

    Of moves those of hosted drivers: an actor knows what its stage allows besides, and checks its own.

    Raises:
        OutOfRangeError: It does not, or is no number, or has a unit, which limits have not. Nothing was sent.
    """
    if isinstance(command, SetParameter):
        _check_setting(definition, command)
    elif isinstance(command, Execute) and command.name in TO_A_PLACE and definition.runtime == "v2":
        axis, target = aim_of(definition, command)
        if axis is not None:
            check_target(definition, axis, target, command.name)


def aim_of(definition: InstrumentDefinition, command: Execute) -> tuple[AxisDefinition | None, Any]:
    """Which axis a command of motion is for, and its number: of the axis that it names, by its number too if a place
    follows, or of the only one.
    """
    given = [*command.args, *command.kwargs.values()]
    named = next((axis for axis in definition.axes if any(_is_called(axis.name, one) for one in given)), None)
    if named is not None:
        rest = [one for one in given if not _is_called(named.name, one)]
    elif len(given) > 1 and (numbered := [axis for axis in definition.axes if _is_called(axis.number, given[0])]):
        named, rest = numbered[0], given[1:]
    else:
        named, rest = definition.axes[0] if len(definition.axes) == 1 else None, given
    by_name = [command.kwargs[key] for key in _AIMS if key in command.kwargs]
    return (named if rest else None), (by_name or rest or [None])[0]


def _is_called(name: str | int, given: Any) -> bool:
    """Whether that is what was given: no array and no other thing that compares in its own way."""
    return isinstance(given, str | int) and given == name


def check_target(definition: InstrumentDefinition, axis: AxisDefinition, target: Any, name: str) -> None:
    """Whether an axis may be sent there.

    Raises:
        OutOfRangeError: It may not, or it is no number. Nothing was sent.
    """
    if axis.limits is None:
        return
    low, high = axis.limits
    if not isinstance(target, numbers.Real) or isinstance(target, bool):
        raise OutOfRangeError(
            f"axis {axis.name}: {target!r} is no number, and it has limits, {low:g} to {high:g} {axis.unit}",
            instrument=definition.id,
            command=name,
            left="nothing was sent",
        )
    if not low <= float(target) <= high:
        said = f"axis {axis.name}: {float(target):g} {axis.unit} is outside {low:g} to {high:g} {axis.unit}"
        raise OutOfRangeError(said, instrument=definition.id, command=name, left="nothing was sent")


def _check_setting(definition: InstrumentDefinition, command: SetParameter) -> None:
    limits = definition.limits.get(command.name)
    if limits is None:
        return
    low, high = limits
    value = command.value
    said = f"{value} is outside the limits {low:g} … {high:g}"
    try:
        within = not isinstance(value, str | bool) and bool(low <= value <= high)
    except (TypeError, ValueError):  # no number, or several
        within = False
    if hasattr(value, "magnitude"):  # pint's: of 4 kV the bare number is within 0 … 5, and no radian is a degree
        within, said = False, f"{value} has a unit, and the limits {low:g} … {high:g} have none"
    if not within:
        raise OutOfRangeError(said, instrument=definition.id, command=command.name, left="nothing was sent")


def may_move(definition: InstrumentDefinition, command: Command) -> bool:
    """Whether `command` may move or emit, as far as the definition of a hosted driver can tell.

    Reading, acquiring, stopping and recovering never do. Setting and executing do, unless the definition names them
    `passive`: of a driver that duodaq does not know, the cautious answer is the safe one.
    """
    if not isinstance(command, SetParameter | Execute):
        return False
    if isinstance(definition.passive, bool):
        return not definition.passive
    return command.name not in definition.passive
