"""The ESP300 as a motion controller with named axes.

Rules that whoever edits this must keep:

* Limits are checked before a byte of a command is written.
* The error queue belongs to this driver. It is emptied before a command and read after it under one lease, so an error
  is never blamed on the wrong command.
* A stop that came after a motion was asked for, and before its bytes were written, ends the motion: the port's stop
  epoch is compared under the lease; from there on the broker compares it.
* A motion that ends by an exception other than a refusal stops its axis first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from duodaq.clock import pause, utc_ns
from duodaq.drivers.esp300._axis import Axis
from duodaq.drivers.esp300._codec import EspError, number, parse_error, parse_flag, parse_number
from duodaq.errors import (
    DeliveryError,
    DuodaqError,
    LifecycleError,
    OutOfRangeError,
    PortTimeoutError,
    RefusedError,
    ReplyFormatError,
    ReplyTimeoutError,
    StoppedError,
)
from duodaq.model import AxisDefinition, AxisReading
from duodaq.ports import Lease, Port

__all__ = ["BreakIn", "Esp300Driver", "Progress"]

Progress = Callable[[float, str], None]
BreakIn = Callable[[bytes, bool], Awaitable[Any]]
"""Puts stop bytes on the wire beside an exchange in hand; True if everybody's waiting motions end with it."""

_QUEUE_LENGTH = 10
_READ_TRIES = 3


class Esp300Driver:
    """Moves, homes, stops and reads the named axes of one controller, over its shared port.

    Args:
        port: The controller's port; its codec is EspCodec.
        holder: In whose name it is leased.
        axes: The axes, by name.
        break_in: How a stop gets on the wire beside an exchange in hand (`Broker.stop`).
        poll_s: How often a motion is looked after.
        tolerance: How far from its target, in its unit, an axis may stand after a move.
        home_timeout_s: How long a search for home may take.
        auto_enable: Whether a motion switches its axis's motor on, if that is off and no fault was reported.
    """

    def __init__(
        self,
        port: Port,
        holder: str,
        axes: Iterable[AxisDefinition],
        break_in: BreakIn,
        *,
        poll_s: float = 0.05,
        tolerance: float = 0.01,
        home_timeout_s: float = 120.0,
        auto_enable: bool = True,
    ) -> None:
        self.axes = {axis.name: Axis(axis) for axis in axes}
        self.firmware = ""
        self._port = port
        self._holder = holder
        self._poll_s = poll_s
        self._tolerance = tolerance
        self._home_timeout_s = home_timeout_s
        self._auto_enable = auto_enable
        self._break_in = break_in

    async def open(self) -> None:
        """Read who is there and what the axes count in; empty the error queue. No output changes.

        Raises:
            PortTimeoutError: Nobody answered.
            ConfigError: An axis's unit cannot be turned into the controller's.

        Wire:
            ``VE?\\r``, ``TB?\\r`` until 0, and for each axis ``1SN?\\r`` → ``2``.
        """
        reply = await self._port.exchange(b"VE?\r", holder=self._holder)
        self.firmware = reply.decode("ascii", "replace").strip()
        async with self._port.lease(self._holder) as lease:
            await self._empty_queue(lease)
        for axis in self.axes.values():
            axis.learn_unit(int(await self._read(axis, "SN?")))

    @property
    def _epoch(self) -> int:
        return self._port.owner.epoch

    def axis(self, name: str) -> Axis:
        """The axis called `name`.

        Raises:
            OutOfRangeError: There is none.
        """
        if name not in self.axes:
            raise OutOfRangeError(f"no axis {name!r}; there are {', '.join(self.axes) or 'none'}")
        return self.axes[name]

    async def move_absolute(self, axis: str, position: float, progress: Progress | None = None) -> None:
        """Move to `position`, in the axis's unit, and wait until it stands there.

        Raises:
            OutOfRangeError: Outside the limits. Nothing was sent.
            RefusedError: The controller said no, with its code and text, at once or on the way (a limit switch).
            StoppedError: A stop ended it; `left` says where the axis stands.
            ReplyTimeoutError: It took more than twice as long as it should. The axis has been stopped.

        Cancellation:
            Stops the axis.

        Wire:
            ``1PA12.5\\r``, ``TB?\\r`` → ``0, 451322, NO ERROR DETECTED``, then ``1MD?\\r`` until ``1``.
        """
        axle = self.axis(axis)
        axle.check(position)
        async with self._motion(axle, "move") as stops:
            await self._move_to(axle, position, stops, progress)

    async def move_relative(self, axis: str, distance: float, progress: Progress | None = None) -> None:
        """Move by `distance`, in the axis's unit, and wait until it stands; the target is checked as a position.

        Raises:
            As `move_absolute`.

        Wire:
            ``1DP?\\r`` → ``5.32``, then as `move_absolute`.
        """
        axle = self.axis(axis)
        async with self._motion(axle, "move") as stops:
            target = await self._read(axle, "DP?") / axle.factor + distance
            axle.check(target)
            await self._move_to(axle, target, stops, progress)

    async def home(self, axis: str, mode: int | None = None, progress: Progress | None = None) -> None:
        """Search the home position, in the controller's search `mode` (0 to 6; its own setting without one).

        Raises:
            As `move_absolute`; the time limit is the driver's `home_timeout_s`.

        Wire:
            ``1OR\\r``, ``TB?\\r``, then ``1MD?\\r`` until ``1``.
        """
        axle = self.axis(axis)
        async with self._motion(axle, "home") as stops:
            await self._enable_if_off(axle, stops)
            await self._launch(axle, "OR" if mode is None else f"OR{mode}", stops)
            await self._arrive(axle, stops, self._home_timeout_s, _homing_reporter(progress, axle.unit))

    async def stop(self, axis: str | None = None) -> None:
        """Decelerate one axis, or all, at once: also while another exchange waits for its reply.

        Wire:
            ``1ST\\r`` or ``ST\\r``; nothing is replied.
        """
        which = str(self.axis(axis).number) if axis is not None else ""
        await self._break_in(f"{which}ST\r".encode(), True)

    async def read_position(self, axis: str) -> float:
        """The actual position, in the axis's unit.  Wire: ``1TP\\r`` → ``5.32``."""
        axle = self.axis(axis)
        return await self._read(axle, "TP") / axle.factor

    async def read_moving(self, axis: str) -> bool:
        """Whether the axis is in motion.  Wire: ``1MD?\\r`` → ``1`` when it stands."""
        return not await self._flag(self.axis(axis), "MD?")

    async def read_axis(self, axis: str) -> AxisReading:
        """Position, velocity and state.  Wire: ``1TP\\r``, ``1TV\\r``, ``1MD?\\r``."""
        axle = self.axis(axis)
        position = await self._read(axle, "TP") / axle.factor
        velocity = await self._read(axle, "TV") / axle.factor
        moving = not await self._flag(axle, "MD?")
        return AxisReading(axis, position, velocity, axle.state(moving), axle.unit, utc_ns())

    async def read_velocity_setting(self, axis: str) -> float:
        """The velocity of moves, in the axis's unit per second.  Wire: ``1VA?\\r`` → ``4.0``."""
        axle = self.axis(axis)
        return await self._read(axle, "VA?") / axle.factor

    async def read_acceleration_setting(self, axis: str) -> float:
        """The acceleration of moves, in the axis's unit per second squared.  Wire: ``1AC?\\r`` → ``10.0``."""
        axle = self.axis(axis)
        return await self._read(axle, "AC?") / axle.factor

    async def read_deceleration_setting(self, axis: str) -> float:
        """The deceleration of moves, in the axis's unit per second squared.  Wire: ``1AG?\\r`` → ``10.0``."""
        axle = self.axis(axis)
        return await self._read(axle, "AG?") / axle.factor

    async def configure(
        self,
        axis: str,
        velocity: float | None = None,
        acceleration: float | None = None,
        deceleration: float | None = None,
    ) -> float:
        """Set how an axis moves, in its unit per second and per second squared.

        Returns:
            The velocity that the controller now has.

        Raises:
            RefusedError: It said no (over its maximum: xx10, xx11). What was set before that stays.

        Wire:
            ``1VA4\\r``, ``1AC10\\r``, ``1AG10\\r``, each with ``TB?\\r`` after it.
        """
        axle = self.axis(axis)
        for mnemonic, value in (("VA", velocity), ("AC", acceleration), ("AG", deceleration)):
            if value is not None:
                await self._command(axle, f"{mnemonic}{number(value * axle.factor)}")
        return await self.read_velocity_setting(axis)

    async def set_enabled(self, axis: str, on: bool) -> bool:
        """Switch an axis's motor; what the controller then reports.  Wire: ``1MO\\r`` or ``1MF\\r``, ``1MO?\\r``."""
        axle = self.axis(axis)
        await self._command(axle, "MO" if on else "MF")
        axle.fault = None if on else axle.fault
        return await self._flag(axle, "MO?")

    async def read_enabled(self, axis: str) -> bool:
        """Whether the motor is on.  Wire: ``1MO?\\r`` → ``1``."""
        return await self._flag(self.axis(axis), "MO?")

    async def read_errors(self) -> list[EspError]:
        """Empty the error queue; its entries, oldest first.  Wire: ``TB?\\r`` until code 0."""
        async with self._port.lease(self._holder) as lease:
            return await self._empty_queue(lease)

    @contextlib.asynccontextmanager
    async def _motion(self, axle: Axis, doing: str) -> AsyncGenerator[int]:
        stops = self._epoch
        while axle.doing and axle.began < stops:  # it was stopped and slows down: its end is near
            await axle.free.wait()
        if axle.doing:
            raise LifecycleError(f"axis {axle.definition.name} is already busy with a {axle.doing}")
        axle.doing, axle.began = doing, stops
        axle.free.clear()
        try:
            yield stops
        except (RefusedError, StoppedError, OutOfRangeError):
            raise
        except DeliveryError as error:
            await self._halt(axle)
            if stops == self._epoch:
                raise
            raise StoppedError("cut by a stop", fate=error.fate, left=f"axis {axle.definition.name} stops") from error
        except BaseException:
            await self._halt(axle)
            raise
        finally:
            axle.doing = ""
            axle.free.set()

    async def _move_to(self, axle: Axis, target: float, stops: int, progress: Progress | None) -> None:
        await self._enable_if_off(axle, stops)
        start = await self.read_position(axle.definition.name)
        limit_s = await self._duration_limit_s(axle, target - start)
        await self._launch(axle, f"PA{number(target * axle.factor)}", stops)
        await self._arrive(axle, stops, limit_s, _reporter(progress, start, target, axle.unit))
        await self._confirm(axle, target)

    async def _halt(self, axle: Axis) -> None:
        # A cancelled motion must still be stopped, so the write is shielded from the next cancellation.
        with contextlib.suppress(DuodaqError):
            await asyncio.shield(asyncio.ensure_future(self._break_in(f"{axle.number}ST\r".encode(), False)))

    async def _launch(self, axle: Axis, command: str, stops: int) -> None:
        await self._command(axle, command, stops)
        axle.fault = None

    async def _command(self, axle: Axis, command: str, stops: int | None = None) -> None:
        async with self._port.lease(self._holder) as lease:
            self._note(await self._empty_queue(lease))
            if stops is not None and stops != self._epoch:
                raise StoppedError("a stop came before it began", left="nothing was sent")
            await lease.write(f"{axle.number}{command}\r".encode())
            errors = await self._empty_queue(lease)
        self._raise(axle, errors)

    async def _arrive(self, axle: Axis, stops: int, limit_s: float, report: Callable[[float], None]) -> None:
        loop = asyncio.get_running_loop()
        overdue_s = loop.time() + limit_s
        while not await self._flag(axle, "MD?"):
            if loop.time() > overdue_s:
                raise ReplyTimeoutError(f"axis {axle.definition.name} still moves after {limit_s:.1f} s", fate="failed")
            report(await self._read(axle, "TP") / axle.factor)
            await pause(self._poll_s)
        errors = await self.read_errors()
        if stops != self._epoch:
            self._note(errors)
            position = await self.read_position(axle.definition.name)
            raise StoppedError("ended by a stop", fate="failed", left=_standing(axle, position))
        self._raise(axle, [error for error in errors if error.axis is not None])

    async def _confirm(self, axle: Axis, target: float) -> None:
        position = await self.read_position(axle.definition.name)
        if abs(position - target) > self._tolerance:
            raise StoppedError(
                f"ended short of {target:g} {axle.unit}: somebody else stopped it",
                fate="failed",
                left=_standing(axle, position),
            )

    async def _enable_if_off(self, axle: Axis, stops: int) -> None:
        # A person asked for this motion, so the motor may be switched on for it; after a fault that person decides.
        if self._auto_enable and not await self._flag(axle, "MO?") and axle.fault is None:
            await self._command(axle, "MO", stops)

    async def _duration_limit_s(self, axle: Axis, distance: float) -> float:
        velocity = max(await self._read(axle, "VA?") / axle.factor, 1e-9)
        return 2 * abs(distance) / velocity + 10.0

    async def _read(self, axle: Axis, query: str) -> float:
        return parse_number(await self._ask(axle, query, parse_number))

    async def _flag(self, axle: Axis, query: str) -> bool:
        return parse_flag(await self._ask(axle, query, parse_flag))

    async def _ask(self, axle: Axis, query: str, parse: Callable[[bytes], object]) -> bytes:
        # Reads change nothing, so a garbled or missing reply is asked for again.
        for left in reversed(range(_READ_TRIES)):
            try:
                reply = await self._port.exchange(f"{axle.number}{query}\r".encode(), holder=self._holder)
                parse(reply)
            except (ReplyFormatError, PortTimeoutError, DeliveryError):  # the last: a stop cut it
                if not left:
                    raise
            else:
                return reply
        raise AssertionError("the last try returns or raises")

    async def _empty_queue(self, lease: Lease) -> list[EspError]:
        errors: list[EspError] = []
        while len(errors) <= _QUEUE_LENGTH:
            error = parse_error(await lease.exchange(b"TB?\r"))
            if error.code == 0:
                break
            errors.append(error)
        return errors

    def _note(self, errors: list[EspError]) -> None:
        for error in errors:
            for axle in self.axes.values():
                if axle.number == error.axis:
                    axle.blame(error)

    def _raise(self, axle: Axis, errors: list[EspError]) -> None:
        self._note(errors)
        mine = [error for error in errors if error.axis in (None, axle.number)]
        if mine:
            raise axle.blame(mine[0])


def _standing(axle: Axis, position: float) -> str:
    return f"axis {axle.definition.name} stands at {position:g} {axle.unit}"


def _reporter(progress: Progress | None, start: float, target: float, unit: str) -> Callable[[float], None]:
    whole = abs(target - start) or 1.0

    def report(position: float) -> None:
        if progress is not None:
            progress(min(1.0, abs(position - start) / whole), f"at {position:g} {unit}")

    return report


def _homing_reporter(progress: Progress | None, unit: str) -> Callable[[float], None]:
    def report(position: float) -> None:
        if progress is not None:
            progress(0.0, f"searching home, at {position:g} {unit}")

    return report
