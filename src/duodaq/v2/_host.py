from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from duodaq import clock
from duodaq.clock import Deadline
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, OutOfRangeError, RefusedError
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    ReadChannel,
    SetParameter,
    SnapFrame,
    aim_of,
    check_limits,
    check_target,
    holder_of,
)
from duodaq.ports import lend
from duodaq.telemetry import get_logger, named
from duodaq.units import same_unit
from duodaq.v2._member import Member, plain_values
from duodaq.v2._reading import Reading
from duodaq.v2._rules import is_safe_action, may_move
from duodaq.v2.families import SharedLine, Surface, family_of, load_driver

LineMaker = Callable[[str, str], SharedLine]
"""Makes the line of a holder on a port."""

Guard = Callable[[], None]
"""Called when the call has begun and nothing has been written yet; raises if a stop came before."""

MOST_NAMED = 20
"""So many names are in the sentence that refuses another."""

RELATIVE = "move_relative"
SNAP_METHODS = ("snap_frame", "snap", "grab_frame", "grab", "get_frame")
_LOG = get_logger("v2.host")


class DriverHost:
    """One driver and its line to the port, from construction to close. All of it runs in the driver's own thread.

    Only `revoke` may be called from elsewhere. `deadline` is that of the call in hand, `units` what the polled channels
    read in before any of them has been read, as far as stanza or driver tell.
    """

    def __init__(self, definition: InstrumentDefinition, lines: LineMaker) -> None:
        self._definition = definition
        self._lines = lines
        self._polls = {poll.channel: poll for poll in definition.polls}
        self._line: SharedLine | None = None
        self._surface: Surface | None = None
        self._revoked = ""
        self.members: tuple[Member, ...] = ()
        self.deadline = Deadline(None)
        self.units: dict[str, str] = {}

    @property
    def watched(self) -> tuple[str, ...]:
        """The names that are read back: those watched, and those that the stanza sets."""
        return tuple(dict.fromkeys((*self._definition.watched, *self._definition.settings)))

    def connect(self) -> None:
        """Load the class and construct the driver.

        Raises:
            ConfigError: The stanza is wrong: no such module, class or argument, nothing of the name that is polled, or
                another unit than the driver's.
            PortLostError: Its line is lost.
            DuodaqError | Exception: Whatever its constructor raised. The session is closed again.
        """
        definition = self._definition
        factory = load_driver(definition)
        family = family_of(factory)
        if definition.port is not None:
            self._line = self._lines(definition.port, holder_of(definition))
        if self._revoked:
            self._release()
            raise LifecycleError(self._revoked, instrument=definition.id)
        try:
            with self._calling("__init__"):
                self._surface = family.construct(factory, definition, self._line, lambda: self.deadline.left_s)
                self.members = self._surface.members()
                self.units = {poll.channel: self._unit_of(poll, self._surface) for poll in definition.polls}
            if self._line is not None:
                self._line.session.expect_line()  # a constructor that asks nothing does not notice
        except BaseException:
            self.close()
            raise

    def connect_after(self, former: DriverHost | None, settings: dict[str, Any]) -> dict[str, Any]:
        """Close the `former` driver if there was one, connect, apply `settings`; what the watched names read then."""
        if former is not None:
            former.close()
        self.connect()
        self.apply(settings)
        return self.read_watched(self.watched)

    def perform(self, command: Command, guard: Guard | None = None) -> Any:
        """Carry out one command; a Reading where it asks for a measurement."""
        match command:
            case GetParameter():
                poll = self._polls.get(command.name)
                if poll is not None and not self.has(command.name):
                    return self.poll(poll)
                return self.get(command)
            case ReadChannel():
                return self.read(command.channel)
            case SetParameter():
                return self.set_and_read(command, guard)
            case Execute():
                return self.execute(command, guard)
            case SnapFrame():
                poll = self._polls.get(command.options.get("channel", ""))
                return self.snap(command) if poll is None else self.poll(poll)
            case _:
                raise RefusedError(f"V2 does not know the command {type(command).__name__}")

    def apply_and_read(self, settings: dict[str, Any], guard: Guard) -> dict[str, Any]:
        """Apply `settings`, those that may move or emit under `guard`; what the watched names read then."""
        self.apply(settings, guard)
        return self.read_watched(self.watched)

    def apply(self, settings: dict[str, Any], guard: Guard | None = None) -> None:
        """Set every one of `settings`, in order; the error of one that is refused names it."""
        for name, value in settings.items():
            moves = guard is not None and may_move(self._definition, SetParameter(name, value))
            try:
                self.set(name, value, guard if moves else None)
            except DuodaqError as error:
                raise error.about(command=name) from error.__cause__

    def get(self, command: GetParameter) -> Any:
        """The value of a dotted attribute; of a method, or another part of the driver, what it is."""
        with self._calling(command.name):
            surface = self._required()
            return surface.part(command.name) if command.part else surface.get(command.name)

    def set(self, name: str, value: Any, guard: Guard | None = None) -> None:
        """Set a dotted attribute."""
        with self._calling(name, moving=guard is not None):
            if guard is not None:
                guard()
            self._required().set(name, value)

    def set_and_read(self, command: SetParameter, guard: Guard | None = None) -> Any:
        """Set, and read back what the device accepted; the value given where it cannot be read back."""
        self.set(command.name, command.value, guard)
        try:
            return self.get(GetParameter(command.name))
        except Exception as error:  # noqa: BLE001  # it has been set; that it cannot be read is no failure of that
            _LOG.debug("cannot be read back", instrument=self._definition.id, name=command.name, error=str(error))
            return command.value

    def execute(self, command: Execute, guard: Guard | None = None) -> Any:
        """Call a method under its dotted name; a move only within the limits of its axis."""
        method = self._required().method(command.name)
        check_limits(self._definition, command)
        if command.name == RELATIVE and not is_safe_action(self._definition, command):
            self._check_distance(command)
        with self._calling(command.name, moving=guard is not None):
            if guard is not None:
                guard()
            return method(*command.args, **command.kwargs)

    def _check_distance(self, command: Execute) -> None:
        """Where a distance leads to, from where the axis says that it is.

        Raises:
            OutOfRangeError: Beyond its limits, or it has some and nobody can say where it is. Nothing moved.
        """
        axis, distance = aim_of(self._definition, command)
        if axis is None or axis.limits is None:
            return
        about: dict[str, Any] = {"instrument": self._definition.id, "command": command.name, "left": "nothing moved"}
        try:
            here = self.read(f"{axis.name}.position")
        except RefusedError as error:
            what = f"axis {axis.name} has limits, and nothing reads where it is: {error.what}"
            raise OutOfRangeError(what, **about) from error
        unit = here.unit or axis.unit
        if not same_unit(unit, axis.unit):
            raise OutOfRangeError(f"axis {axis.name} is in {axis.unit}, and its position is read in {unit}", **about)
        try:
            target = float(here.value) + float(distance)
        except (TypeError, ValueError) as error:
            raise OutOfRangeError(f"axis {axis.name}: {distance!r} from {here.value!r} is no place", **about) from error
        check_target(self._definition, axis, target, command.name)

    def read_watched(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The present values of `names`."""
        return {name: self.get(GetParameter(name)) for name in names}

    def plain(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Those of `names` that are plain attributes of the driver: their values, without running its code."""
        driver = None if self._surface is None else self._surface.driver
        return plain_values(driver, names)

    def poll(self, poll: PollDefinition) -> Reading:
        """One reading of a polled channel."""
        axis_unit = self._definition.options.get("axis_unit", "")
        if poll.call is not None:
            return Reading(self.execute(Execute(poll.call, poll.args)), poll.unit, clock.utc_ns(), axis_unit)
        name = poll.read or poll.channel
        with self._calling(name):
            found = self._required().measure(name)
        return Reading(found.value, self._agreed(poll, found.unit), clock.utc_ns(), axis_unit or found.axis_unit)

    def read(self, channel: str) -> Reading:
        """One reading of a channel, outside its turn.

        Raises:
            RefusedError: The stanza has no such channel, and the driver describes none. Nothing was sent.
        """
        if channel in self._polls:
            return self.poll(self._polls[channel])
        if self._required().describes(channel):
            return self.poll(PollDefinition(channel, 0.0, read=channel))
        known = ", ".join(dict.fromkeys((*self._polls, *self._described()))) or "none"
        raise RefusedError(f"it has no channel {channel!r}; there are: {known}")

    def snap(self, command: SnapFrame) -> Reading:
        """One frame, from the method that the stanza's option `snap` names, or the usual ones."""
        surface = self._required()
        wanted = self._definition.options.get("snap")
        name = next((n for n in ((wanted,) if wanted else SNAP_METHODS) if surface.has(n)), None)
        if name is None:
            raise RefusedError(
                f"{type(surface.driver).__name__} takes no frames: it has none of {', '.join(SNAP_METHODS)}",
                command="snap",
            )
        value = self.execute(Execute(name, kwargs=command.options))
        return Reading(value, self._definition.options.get("snap_unit", ""), clock.utc_ns())

    def has(self, name: str) -> bool:
        """Whether the driver has this dotted attribute."""
        return self._required().has(name)

    def close(self) -> None:
        """Close the driver, then its session. Never raises; what fails is logged."""
        surface, self._surface = self._surface, None
        if surface is not None:
            try:
                with self._calling("close"):
                    surface.close()
            except Exception as error:  # noqa: BLE001  # a driver that cannot close must not keep its port
                _LOG.warning("driver failed to close", instrument=self._definition.id, error=named(error))
        self._release()

    def revoke(self, reason: str) -> None:
        """Take its handles away: its later calls on the shared port raise. From any thread."""
        self._revoked = reason
        if self._line is not None:
            self._line.session.revoke(reason)

    def _required(self) -> Surface:
        if self._surface is None:
            raise LifecycleError(self._revoked or "it is not connected", instrument=self._definition.id)
        return self._surface

    def _described(self) -> list[str]:
        """What the driver itself says that it measures, so that one need not know its source to ask for it."""
        surface = self._required()
        return [m.name for m in self.members if m.readable and surface.describes(m.name)][:MOST_NAMED]

    def _unit_of(self, poll: PollDefinition, surface: Surface) -> str:
        if poll.read is None:
            return poll.unit
        try:
            return self._agreed(poll, surface.unit(poll.read))
        except RefusedError as error:
            raise ConfigError(
                error.what, key=f"{self._key(poll)}.read", remedy="Name what the driver has, or leave the poll out."
            ) from error

    def _agreed(self, poll: PollDefinition, unit: str) -> str:
        """The stanza's unit if it has one, the driver's otherwise; nobody converts one to the other."""
        if poll.unit and unit and not same_unit(poll.unit, unit):
            raise ConfigError(
                f'the stanza says that it reads in "{poll.unit}", and the driver says "{unit}"',
                key=f"{self._key(poll)}.unit",
                remedy=f'Leave the unit out, or write unit = "{unit}": values are not converted.',
            )
        return poll.unit or unit

    def _key(self, poll: PollDefinition) -> str:
        return f"instruments.{self._definition.id}.poll.{poll.channel}"

    @contextlib.contextmanager
    def _calling(self, name: str, *, moving: bool = False) -> Generator[None]:
        """One driver call: under a lease of its own, and with the instrument's session for VISA drivers to find."""
        line = self._line
        if line is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(lend(line.session))
            if not (self._revoked and name == "close"):
                stack.enter_context(line.session.call(self._hold_max_s(name), self.deadline, moving=moving))
            yield

    def _hold_max_s(self, name: str) -> float | None:
        limits = self._definition.options.get("hold_max_s")
        return limits.get(name) if isinstance(limits, dict) else limits  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # an option as the file gives it

    def _release(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.session.close()
