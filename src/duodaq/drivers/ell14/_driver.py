"""Elliptec rotators as a motion controller with named axes, in degrees; an axis's number is its address on the line.

Rules that whoever edits this must keep:

* A motion is an exchange that the broker sets aside: never make one under a lease, which would keep the line from
  everybody until the motion ends.
* Its reply may be lost, or be taken by somebody who asked the same address at that moment. So a motion is looked after
  by GS, and where it ended is compared with where it should. By GS alone: the answer to GP looks like the motion's end,
  and whoever takes one for the other has the right number, but does not wait for the second.
* Pulses per revolution come from IN. Limits are checked before a byte of a command is written.
* A motion that ends by an exception other than a refusal stops its axis first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from duodaq.clock import pause, utc_ns
from duodaq.drivers._limited_axis import LimitedAxis
from duodaq.drivers.ell14._codec import stop_bytes_of
from duodaq.drivers.ell14._frames import EllStatus, parse_frame, parse_identity, parse_position, parse_status
from duodaq.errors import (
    ConfigError,
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
from duodaq.model import AxisDefinition, AxisReading, AxisState
from duodaq.ports import Port

__all__ = ["ElliptecDriver", "Rotator"]

Progress = Callable[[float, str], None]
BreakIn = Callable[[bytes, bool], Awaitable[Any]]
_FULL_SPEED_DEG_PER_S = 430.0
_MARGIN_S = 3.0
_TRIES = 3


@dataclass
class Rotator(LimitedAxis):
    """One rotator. `fault` is the last thing that it said ailed it, until it has moved with success."""

    pulses: int = 0
    serial: str = ""
    fault: EllStatus | None = None
    ready_s: float = 0.0

    @property
    def address(self) -> bytes:
        """Its address on the line."""
        return f"{self.number:X}".encode()

    @property
    def velocity_unit(self) -> str:
        """Per cent of the highest velocity."""
        return "%"

    def to_pulses(self, degrees: float) -> bytes:
        """Eight digits, for a command."""
        return f"{round(degrees * self.pulses / 360.0) & 0xFFFFFFFF:08X}".encode()

    def to_degrees(self, pulses: int) -> float:
        """Where so many pulses are."""
        return pulses * 360.0 / self.pulses


class ElliptecDriver:
    """Moves, homes, stops and reads rotators that share one line with others.

    Args:
        port: The line; its codec is EllCodec.
        holder: In whose name it is leased.
        axes: The rotators: number is the address, 0 to 15, and unit is ``"deg"``.
        break_in: How a stop gets on the wire before everybody else's commands (`Broker.stop`).
        poll_s: How often a motion is looked after.
        settle_s: How long a rotator is left alone behind a motion: one that follows at once may go to 0.
        tolerance: How far from its target, in degrees, a rotator may stand after a move.
        home_timeout_s: How long a search for home may take.
    """

    def __init__(
        self,
        port: Port,
        holder: str,
        axes: Iterable[AxisDefinition],
        break_in: BreakIn,
        *,
        poll_s: float = 0.2,
        settle_s: float = 0.1,
        tolerance: float = 0.2,
        home_timeout_s: float = 20.0,
    ) -> None:
        self.axes = {axis.name: Rotator(axis) for axis in axes}
        self._port = port
        self._holder = holder
        self._break_in = break_in
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._tolerance = tolerance
        self._home_timeout_s = home_timeout_s
        for axle in self.axes.values():
            _check_definition(axle)

    async def open(self) -> None:
        """Read who the rotators are and what they count in. Nothing of them changes.

        Raises:
            PortTimeoutError: One does not answer.
            ConfigError: At an address is another rotator than before.

        Wire:
            ``0in`` → ``0IN0E1140051020231701016800023000\\r\\n`` for each
        """
        for axle in self.axes.values():
            identity = parse_identity(await self._ask(axle, b"in", parse_identity))
            if axle.serial not in ("", identity.serial):
                raise ConfigError(
                    f"axis {axle.definition.name}: at address {axle.number} is {identity.serial} now, not {axle.serial}"
                )
            axle.pulses, axle.serial = identity.pulses, identity.serial

    def axis(self, name: str) -> Rotator:
        """The axis called `name`.

        Raises:
            OutOfRangeError: There is none.
        """
        if name not in self.axes:
            raise OutOfRangeError(f"no axis {name!r}; there are {', '.join(self.axes)}", left="nothing was sent")
        return self.axes[name]

    async def move_absolute(self, axis: str, position: float, progress: Progress | None = None) -> None:
        """Turn to `position`, in degrees, and wait until it stands there.

        Raises:
            OutOfRangeError: Outside the limits. Nothing was sent.
            RefusedError: The rotator said no, or did not get there.
            StoppedError: A stop ended it.
            ReplyTimeoutError: It neither arrived nor said why; it has been stopped.

        Cancellation: The rotator is stopped.

        Wire:
            ``0ma00008C00`` → ``0PO00008C00\\r\\n`` when it stands; ``0gs`` → ``0GS09\\r\\n`` meanwhile
        """
        axle = self.axis(axis)
        axle.check(position)
        async with self._motion(axle, "move") as stops:
            start = await self.read_position(axis)
            await self._turn(axle, start, position, stops, progress)

    async def move_relative(self, axis: str, distance: float, progress: Progress | None = None) -> None:
        """Turn by `distance`, in degrees; the target is checked as a position. Raises as `move_absolute`.

        Wire:
            ``0gp`` → ``0PO00000000\\r\\n``, then as `move_absolute`
        """
        axle = self.axis(axis)
        async with self._motion(axle, "move") as stops:
            start = await self.read_position(axis)
            axle.check(start + distance)
            await self._turn(axle, start, start + distance, stops, progress)

    async def home(self, axis: str, mode: int | None = None, progress: Progress | None = None) -> None:
        """Search home, clockwise (`mode` 0, the default) or the other way (1). Raises as `move_absolute`.

        Wire:
            ``0ho0`` → ``0PO00000000\\r\\n`` when it is there
        """
        axle = self.axis(axis)
        if mode not in (None, 0, 1):
            raise OutOfRangeError(f"there is no direction {mode}; 0 or 1", left="nothing was sent")
        async with self._motion(axle, "home") as stops:
            seen = await self._travel(axle, b"ho%d" % (mode or 0), self._home_timeout_s, stops, _searching(progress))
            if seen is not None:
                raise _refused(axle, seen)
            if stops != self._epoch and abs(await self.read_position(axis)) > self._tolerance:
                raise StoppedError("ended by a stop", fate="failed", left=f"axis {axis} is not at home")

    async def stop(self, axis: str | None = None) -> None:
        """Stop one axis, or all of this driver's, before everybody else's commands.  Wire: ``0st``"""
        axes = [self.axis(axis)] if axis is not None else list(self.axes.values())
        await self._break_in(b"".join(stop_bytes_of(axle.address) for axle in axes), True)

    async def read_position(self, axis: str) -> float:
        """Where it is, in degrees.  Wire: ``0gp`` → ``0PO00008C00\\r\\n``"""
        axle = self.axis(axis)
        return axle.to_degrees(parse_position(await self._ask(axle, b"gp", parse_position)))

    async def read_moving(self, axis: str) -> bool:
        """Whether it turns.  Wire: ``0gs`` → ``0GS09\\r\\n``"""
        return await self._status(self.axis(axis)) is EllStatus.BUSY

    async def read_axis(self, axis: str) -> AxisReading:
        """Position and state; the velocity is 0, for it tells none.  Wire: ``0gs``, ``0gp``"""
        axle = self.axis(axis)
        busy = await self.read_moving(axis)
        position = await self.read_position(axis)
        state = AxisState.FAULTED if axle.fault is not None else AxisState.IDLE
        if busy:
            state = AxisState.HOMING if axle.doing == "home" else AxisState.MOVING
        return AxisReading(axis, position, 0.0, state, axle.unit, utc_ns())

    async def read_velocity_setting(self, axis: str) -> float:
        """The velocity, in per cent of the highest.  Wire: ``0gv`` → ``0GV64\\r\\n``"""
        reply = await self._ask(self.axis(axis), b"gv", lambda reply: _digits(reply, b"GV"))
        return float(_digits(reply, b"GV"))

    async def configure(
        self,
        axis: str,
        velocity: float | None = None,
        acceleration: float | None = None,
        deceleration: float | None = None,
    ) -> float:
        """Set the velocity, in per cent of the highest; what the rotator then has.

        Raises:
            OutOfRangeError: It is not from 1 to 100, or an acceleration is given, which nobody can set.
            RefusedError: The rotator said no.

        Wire:
            ``0sv32`` → ``0GS00\\r\\n``, ``0gv`` → ``0GV32\\r\\n``
        """
        axle = self.axis(axis)
        if acceleration is not None or deceleration is not None:
            raise OutOfRangeError("an Elliptec rotator takes no acceleration", left="nothing was sent")
        if velocity is not None:
            if not 1 <= velocity <= 100:
                raise OutOfRangeError(f"{velocity:g} % is outside 1 to 100 %", left="nothing was sent")
            reply = await self._port.exchange(axle.address + b"sv%02X" % round(velocity), holder=self._holder)
            status = parse_status(reply)
            if status is not EllStatus.OK:
                raise _refused(axle, status)
        return await self.read_velocity_setting(axis)

    @property
    def _epoch(self) -> int:
        return self._port.owner.epoch

    @contextlib.asynccontextmanager
    async def _motion(self, axle: Rotator, doing: str) -> AsyncGenerator[int]:
        if axle.doing:
            raise LifecycleError(f"axis {axle.definition.name} is already busy with a {axle.doing}")
        axle.doing, stops = doing, self._epoch
        loop = asyncio.get_running_loop()
        try:
            await pause(max(0.0, axle.ready_s - loop.time()))
            yield stops
        except (RefusedError, StoppedError, OutOfRangeError):
            raise
        except BaseException:
            await self._halt(axle)
            raise
        finally:
            axle.doing, axle.ready_s = "", loop.time() + self._settle_s

    async def _halt(self, axle: Rotator) -> None:
        # A cancelled motion must still be stopped, so the write is shielded from the next cancellation.
        with contextlib.suppress(DuodaqError):
            await asyncio.shield(asyncio.ensure_future(self._break_in(stop_bytes_of(axle.address), False)))

    async def _turn(self, axle: Rotator, start: float, target: float, stops: int, progress: Progress | None) -> None:
        speed = _FULL_SPEED_DEG_PER_S * await self.read_velocity_setting(axle.definition.name) / 100
        expected_s = abs(target - start) / max(speed, 1.0)
        report = _reporter(progress, expected_s, target)
        seen = await self._travel(axle, b"ma" + axle.to_pulses(target), _MARGIN_S + 2 * expected_s, stops, report)
        position = await self.read_position(axle.definition.name)
        if abs(position - target) <= self._tolerance:
            return
        if stops == self._epoch and seen is not None:
            raise _refused(axle, seen)
        why = "ended by a stop" if stops != self._epoch else f"ended short of {target:g} deg: somebody else stopped it"
        raise StoppedError(why, fate="failed", left=_standing(axle, position))

    async def _travel(
        self, axle: Rotator, command: bytes, limit_s: float, stops: int, report: Callable[[float], None] | None
    ) -> EllStatus | None:
        """Carry out a motion to its end; the fault that it told of meanwhile, if there was one."""
        if stops != self._epoch:
            raise StoppedError("a stop came before it began", left="nothing was sent")
        sent = self._port.exchange(axle.address + command, holder=self._holder, timeout_s=limit_s)
        reply = asyncio.ensure_future(sent)
        try:
            seen = await self._look_after(axle, reply, limit_s, report)
        finally:
            reply.cancel()
            await asyncio.wait((reply,))
        status = None if reply.cancelled() else _outcome(axle, reply)
        if status is EllStatus.BUSY:  # perhaps the late answer to somebody's GS: where it ends up will tell
            status, seen = None, EllStatus.BUSY
            await self._come_to_rest(axle, limit_s)
        axle.fault = status or seen
        if status is not None and status is not EllStatus.OK:
            raise _refused(axle, status)
        return seen

    async def _look_after(
        self, axle: Rotator, reply: asyncio.Future[bytes], limit_s: float, report: Callable[[float], None] | None
    ) -> EllStatus | None:
        """Wait for the end of a motion: its reply, or twice in a row a rotator that does not turn."""
        loop = asyncio.get_running_loop()
        seen: EllStatus | None = None
        began_s, still = loop.time(), 0
        while still < 2 and not (await asyncio.wait((reply,), timeout=self._poll_s))[0]:
            with contextlib.suppress(ReplyFormatError, PortTimeoutError, DeliveryError):
                status = await self._status(axle)
                still = 0 if status is EllStatus.BUSY else still + 1
                if status not in (EllStatus.BUSY, EllStatus.OK):
                    seen = status
            if loop.time() - began_s > limit_s:
                raise ReplyTimeoutError(f"axis {axle.definition.name} still turns after {limit_s:.1f} s", fate="failed")
            if report is not None:
                report(loop.time() - began_s)
        return seen

    async def _come_to_rest(self, axle: Rotator, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        overdue_s = loop.time() + limit_s
        while await self._status(axle) is EllStatus.BUSY:
            if loop.time() > overdue_s:
                raise ReplyTimeoutError(f"axis {axle.definition.name} still turns after {limit_s:.1f} s", fate="failed")
            await pause(self._poll_s)

    async def _status(self, axle: Rotator) -> EllStatus:
        reply = await self._ask(axle, b"gs", lambda reply: _digits(reply, b"GS"))
        return EllStatus(_digits(reply, b"GS"))

    async def _ask(self, axle: Rotator, query: bytes, parse: Callable[[bytes], object]) -> bytes:
        # Reads change nothing, so one that is damaged, missing or cut by a stop is asked for again.
        for left in reversed(range(_TRIES)):
            try:
                reply = await self._port.exchange(axle.address + query, holder=self._holder)
                status = parse_status(reply)
                if status is not None and query != b"gs":
                    raise _refused(axle, status)
                parse(reply)
            except (ReplyFormatError, PortTimeoutError, DeliveryError):
                if not left:
                    raise
            else:
                return reply
        raise AssertionError("the last try returns or raises")


def _outcome(axle: Rotator, reply: asyncio.Future[bytes]) -> EllStatus | None:
    """The status that a motion ended with, None if with a position.

    Raises:
        ReplyTimeoutError: It did not end in its time.
    """
    try:
        return parse_status(reply.result())
    except PortTimeoutError as error:
        raise ReplyTimeoutError(f"axis {axle.definition.name} still turns: {error.what}", fate="failed") from error


def _check_definition(axle: Rotator) -> None:
    name = axle.definition.name
    if axle.unit != "deg" or not 0 <= axle.number <= 15:
        raise ConfigError(
            f"axis {name} has number {axle.number} and unit {axle.unit!r}",
            key=f"axes.{name}",
            remedy='A rotator\'s number is its address, 0 to 15, and its unit is "deg"',
        )


def _digits(reply: bytes, letters: bytes) -> int:
    frame = parse_frame(reply)
    if frame is None or frame.letters != letters:
        raise ReplyFormatError(f"expected {letters.decode()}, got {reply!r}", reply=reply)
    return int(frame.data, 16)


def _refused(axle: Rotator, status: EllStatus | None) -> RefusedError:
    status = status or EllStatus.UNKNOWN
    return RefusedError(
        f"axis {axle.definition.name}: the rotator says {status.text}", code=int(status), text=status.text
    )


def _standing(axle: Rotator, position: float) -> str:
    return f"axis {axle.definition.name} stands at {position:.2f} deg"


def _reporter(progress: Progress | None, expected_s: float, target: float) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda elapsed_s: progress(min(0.99, elapsed_s / max(expected_s, 1e-3)), f"turning to {target:.2f} deg")


def _searching(progress: Progress | None) -> Callable[[float], None] | None:
    return None if progress is None else lambda elapsed_s: progress(0.0, f"searching home for {elapsed_s:.1f} s")
