"""What all motion controllers do alike as actors: named axes, motions as operations, a stream for each axis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from duodaq.drivers import LimitedAxis
from duodaq.errors import ConfigError, OutOfRangeError
from duodaq.model import (
    AxisReading,
    ChannelInfo,
    InstrumentState,
    Measurement,
    MotionController,
    Scalar,
    SetParameter,
    StartAcquisition,
    Stop,
)
from duodaq.schema import stage_batch
from duodaq.v4._message import handler
from duodaq.v4.instruments._context import InstrumentContext
from duodaq.v4.instruments._instrument import InstrumentActor, Parameter
from duodaq.v4.instruments._messages import (
    ConfigureMotion,
    Home,
    MoveAbsolute,
    MoveRelative,
    ReadAxisState,
    ReadPosition,
)

__all__ = ["MotionActor", "MotionDriver"]

_DEFAULT_RATE_HZ = 10.0
Progress = Callable[[float, str], None]


class MotionDriver(MotionController, Protocol):
    """What the actor needs of a driver, besides moving."""

    @property
    def axes(self) -> Mapping[str, LimitedAxis]: ...

    def axis(self, name: str) -> LimitedAxis: ...

    async def open(self) -> None: ...

    async def move_absolute(self, axis: str, position: float, progress: Progress | None = None) -> None: ...

    async def move_relative(self, axis: str, distance: float, progress: Progress | None = None) -> None: ...

    async def home(self, axis: str, mode: int | None = None, progress: Progress | None = None) -> None: ...

    async def read_axis(self, axis: str) -> AxisReading: ...

    async def read_moving(self, axis: str) -> bool: ...

    async def read_velocity_setting(self, axis: str) -> float: ...

    async def configure(
        self,
        axis: str,
        velocity: float | None = None,
        acceleration: float | None = None,
        deceleration: float | None = None,
    ) -> float: ...


D = TypeVar("D", bound=MotionDriver)


class MotionActor(InstrumentActor, Generic[D]):
    """Moves the axes of a lab file (``axes.x = { number = 1, unit = "mm", limits = [0, 25] }``) by a `MotionDriver`.

    While acquiring, each axis has a stream of its name (``stage.x``) with position, velocity and state; V2 sees its
    numbers as channels ``x.position`` and ``x.velocity``. What is looked at goes into the parameter table too.
    """

    operations: ClassVar[Mapping[str, type]] = {
        "move": MoveAbsolute,
        "move_absolute": MoveAbsolute,
        "move_relative": MoveRelative,
        "home": Home,
        "read_position": ReadPosition,
        "read_axis_state": ReadAxisState,
        "configure": ConfigureMotion,
    }

    def __init__(self, context: InstrumentContext) -> None:
        super().__init__(context)
        if not self.definition.axes:
            raise ConfigError(
                "a motion controller needs axes",
                key=f"instruments.{self.definition.id}.axes",
                remedy='Give each a line such as axes.x = { number = 1, unit = "mm", limits = [0, 25] }',
            )
        options = dict(self.definition.args)
        self._rate_hz = float(options.pop("rate_hz", _DEFAULT_RATE_HZ))
        try:
            self.driver: D = self.make_driver(options)
        except TypeError as error:
            raise ConfigError(str(error), key=f"instruments.{self.definition.id}.args") from error
        self._known = {
            name: made
            for axis in self.definition.axes
            for name, made in axis_parameters(axis.name, axis.unit, self.driver.axis(axis.name).velocity_unit)
        }

    def make_driver(self, options: dict[str, Any]) -> D:
        """The driver, from what `args` leaves; a TypeError says that it takes no such option."""
        raise NotImplementedError

    @classmethod
    def may_move(cls, message: Any) -> bool:
        """Whether it moves: besides the motions, setting a position."""
        if isinstance(message, SetParameter):
            return message.name.endswith(".position")
        return super().may_move(message)

    def known_parameters(self) -> Mapping[str, Parameter]:
        """For each axis: position, target limits, velocity, enabled, moving, state."""
        return self._known

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """For each axis its stream, and the channels ``x.position`` and ``x.velocity`` that are made of it."""
        own = self.definition.id
        infos: list[ChannelInfo] = []
        for axis in self.definition.axes:
            infos.append(ChannelInfo(own, axis.name, axis.unit, "stage", "v4"))
            infos.append(ChannelInfo(own, f"{axis.name}.position", axis.unit, "scalar", "v4"))
            infos.append(ChannelInfo(own, f"{axis.name}.velocity", f"{axis.unit}/s", "scalar", "v4"))
        return (*infos, *super().channel_infos())

    async def connect(self) -> None:
        """Learn who the axes are, and apply the stored motion settings; nothing moves."""
        await self.driver.open()
        for settings in self._stored().values():
            await self._apply(settings)
        for axis in self.definition.axes:
            await self._look(axis.name)

    @handler(MoveAbsolute, moves=True, operation=True)
    async def move_absolute(self, message: MoveAbsolute) -> None:
        """Move an axis to a position; done when it stands there."""
        self.driver.axis(message.axis).check(message.position)
        await self._moving(message.axis, partial(self.driver.move_absolute, message.axis, message.position))

    @handler(MoveRelative, moves=True, operation=True)
    async def move_relative(self, message: MoveRelative) -> float:
        """Move an axis by a distance; the reply is where it then stands."""
        await self._moving(message.axis, partial(self.driver.move_relative, message.axis, message.distance))
        return await self.driver.read_position(message.axis)

    @handler(Home, moves=True, operation=True)
    async def home(self, message: Home) -> None:
        """Search an axis's home position."""
        await self._moving(message.axis, partial(self.driver.home, message.axis, message.mode))

    @handler(Stop, urgent=True)
    async def handle_stop(self, message: Stop) -> None:
        """Stop one axis or all at once, beside whatever else is in hand."""
        self.end_waiting(message.axis)
        await self.driver.stop(message.axis)

    @handler(ReadPosition, idempotent=True)
    async def read_position(self, message: ReadPosition) -> float:
        """Where an axis is."""
        position = await self.driver.read_position(message.axis)
        self.note(f"{message.axis}.position", position, self.driver.axis(message.axis).unit)
        return position

    @handler(ReadAxisState, idempotent=True)
    async def read_axis_state(self, message: ReadAxisState) -> AxisReading:
        """Position, velocity and state of an axis."""
        return await self._look(message.axis)

    @handler(ConfigureMotion, moves=False)
    async def configure(self, message: ConfigureMotion) -> float:
        """Set how an axis moves; the reply is its velocity. Stored, and applied again after a restart."""
        velocity = await self._apply(message)
        old = self._stored().get(message.axis, ConfigureMotion(message.axis))
        new = {key: value for key, value in msgspec.structs.asdict(message).items() if value is not None}
        self._stored()[message.axis] = msgspec.structs.replace(old, **new)
        for name in new.keys() - {"axis"}:
            if (parameter := f"{message.axis}.{name}") in self.known_parameters():
                self.keep(parameter, new[name])
        return velocity

    @handler(StartAcquisition)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        """Begin the streams; the option ``rate_hz`` is how often each axis is read."""
        options = dict(message.options)
        rate_hz = float(options.pop("rate_hz", self._rate_hz))
        if not 0 < rate_hz <= 1000:
            raise OutOfRangeError(f"{rate_hz} readings a second are not possible", left="nothing was started")
        await super().start_acquisition(StartAcquisition(options))
        for axis in self.definition.axes:
            self.keep_running(f"{axis.name} position", 1 / rate_hz, partial(self._sample, axis.name))
        self.context.report(InstrumentState.ACQUIRING, "")

    async def _moving(self, axis: str, motion: Callable[[Progress], Awaitable[Any]]) -> None:
        """It moves from its first progress on: a motion that is refused, or finds its line lost, moves nothing."""
        moved = False

        def progress(fraction: float, text: str = "") -> None:
            nonlocal moved
            if not moved:
                moved = True
                self.note(f"{axis}.moving", True)
            self.progress(fraction, text)

        try:
            await motion(progress)
        finally:
            if moved:
                self.note(f"{axis}.moving", False)
            await self._look_again(axis)

    async def _look_again(self, axis: str) -> None:
        try:
            await self._look(axis)
        except Exception:  # noqa: BLE001 - the motion's own outcome matters more than a look at where it ended
            self.context.parameters.mark_stale("v4", self.definition.id)

    async def _look(self, axis: str) -> AxisReading:
        reading = await self.driver.read_axis(axis)
        self.note(f"{axis}.position", reading.position, reading.unit)
        self.note(f"{axis}.moving", reading.state in ("moving", "homing"))
        self.note(f"{axis}.state", str(reading.state))
        return reading

    async def measure(self, channel: str) -> Measurement:
        """One look at an axis: ``x`` and ``x.position`` give its position, ``x.velocity`` its velocity."""
        axis, _, what = channel.partition(".")
        if axis not in self.driver.axes or what not in ("", "position", "velocity"):
            return await super().measure(channel)
        reading, sequence = await self._sample(axis)
        value, unit = (
            (reading.velocity, f"{reading.unit}/s") if what == "velocity" else (reading.position, reading.unit)
        )
        return Scalar(self.definition.id, channel, unit, reading.t_ns, sequence, value, "v4")

    async def _sample(self, axis: str) -> tuple[AxisReading, int]:
        reading = await self._look(axis)
        sequence = self.streams.sequence(axis)
        batch = stage_batch(
            instrument=self.definition.id,
            channel=axis,
            t_ns=[reading.t_ns],
            sequence=[sequence],
            axis=[axis],
            position=[reading.position],
            velocity=[reading.velocity],
            state=[str(reading.state)],
            unit=[reading.unit],
        )
        await self.streams.deliver(axis, batch)
        return reading, sequence

    def _stored(self) -> dict[str, ConfigureMotion]:
        return self.context.memory.setdefault("motion", {})

    async def _apply(self, wanted: ConfigureMotion) -> float:
        axle = self.driver.axis(wanted.axis)
        velocity = await self.driver.configure(wanted.axis, wanted.velocity, wanted.acceleration, wanted.deceleration)
        if wanted.limits is not None:
            axle.narrow(wanted.limits)
        self.note(f"{wanted.axis}.velocity", velocity, axle.velocity_unit)
        self.note(f"{wanted.axis}.limits", axle.limits, axle.unit)
        return velocity


def axis_parameters(axis: str, unit: str, velocity_unit: str) -> list[tuple[str, Parameter]]:
    """Position, velocity, limits, motion and state of an axis, as parameters."""

    async def position(actor: MotionActor[Any]) -> float:
        return await actor.driver.read_position(axis)

    async def velocity(actor: MotionActor[Any]) -> float:
        return await actor.driver.read_velocity_setting(axis)

    async def moving(actor: MotionActor[Any]) -> bool:
        return await actor.driver.read_moving(axis)

    async def move(actor: MotionActor[Any], target: float) -> float:
        await actor.move_absolute(MoveAbsolute(axis, target))
        return await actor.driver.read_position(axis)

    async def set_velocity(actor: MotionActor[Any], wanted: float) -> float:
        return await actor.configure(ConfigureMotion(axis, velocity=wanted))

    async def set_limits(actor: MotionActor[Any], limits: tuple[float, float]) -> Any:
        await actor.configure(ConfigureMotion(axis, limits=(float(limits[0]), float(limits[1]))))
        return actor.driver.axis(axis).limits

    async def limits(actor: MotionActor[Any]) -> Any:
        return actor.driver.axis(axis).limits

    async def state(actor: MotionActor[Any]) -> str:
        return str((await actor.driver.read_axis(axis)).state)

    return [
        (f"{axis}.position", Parameter(position, move, unit, emits=True)),
        (f"{axis}.velocity", Parameter(velocity, set_velocity, velocity_unit)),
        (f"{axis}.limits", Parameter(limits, set_limits, unit)),
        (f"{axis}.moving", Parameter(moving)),
        (f"{axis}.state", Parameter(state)),
    ]
