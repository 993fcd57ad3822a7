"""What every instrument actor does alike: parameters, polled channels, operations by name, and its state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

from duodaq.clock import pause
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, OutOfRangeError, UnsafeStateError
from duodaq.model import (
    ChannelInfo,
    Command,
    Execute,
    GetParameter,
    InstrumentState,
    Measurement,
    PollDefinition,
    ReadChannel,
    Recover,
    Scalar,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Port
from duodaq.telemetry import get_logger
from duodaq.v4._actor import Actor
from duodaq.v4._message import HandlerSpec, StopReason, handler
from duodaq.v4.instruments._context import SAFE_ACTION, InstrumentContext
from duodaq.v4.instruments._fields import check_fields
from duodaq.v4.instruments._streams import Streams

__all__ = ["InstrumentActor", "Parameter"]

_log = get_logger("v4.instrument")
_SLOWEST_RETRY_S = 2.0
_LAST_READING_S = 0.3
"""So long at most the end of an acquisition waits for the reading that is in hand."""


class Parameter(NamedTuple):
    """One thing that can be read, and set if `write` is given; both get the actor first.

    `write` returns what the device accepted. `emits` says that setting it may move or emit something.
    """

    read: Callable[[Any], Awaitable[Any]]
    write: Callable[[Any, Any], Awaitable[Any]] | None = None
    unit: str = ""
    emits: bool = False


class InstrumentActor(Actor):
    """An instrument: subclass it, fill `parameters`, `channels` and `operations`, and add handlers.

    ``operations`` maps the names of Execute to message types, whose fields take the arguments in order. ``channels``
    are polled while the instrument acquires; those of the lab file come on top.
    """

    operations: ClassVar[Mapping[str, type]] = {}
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    channels: ClassVar[tuple[PollDefinition, ...]] = ()

    def __init__(self, context: InstrumentContext) -> None:
        self.context = context
        self.definition = context.definition
        self.streams = Streams(context.publisher, self.definition.id, context.memory)
        self._acquiring: list[Any] = []
        self._unwell: set[str] = set()

    @property
    def port(self) -> Port:
        """The port of the lab file.

        Raises:
            ConfigError: It gives none.
        """
        if self.context.port is None:
            raise ConfigError(
                "this driver needs a port",
                key=f"instruments.{self.definition.id}.port",
                remedy='Give the instrument port = "…", and that port its own section',
            )
        return self.context.port

    @classmethod
    def message_for(cls, command: Command) -> Any:
        """The message that carries out `command`: an Execute becomes its operation's message, others stay.

        Raises:
            OutOfRangeError: No such operation, or wrong arguments. Nothing was done.
        """
        if not isinstance(command, Execute):
            return command
        kind = cls.operations.get(command.name)
        if kind is None:
            raise OutOfRangeError(f"no operation {command.name!r}; {cls._instead_of(command.name)}")
        try:
            message = kind(*command.args, **command.kwargs)
        except TypeError as error:
            raise OutOfRangeError(f"{command.name} does not take these arguments: {error}") from error
        check_fields(message, command.name)
        return message

    @classmethod
    def _instead_of(cls, name: str) -> str:
        """What there is, for somebody who called something that is no operation."""
        if name in cls.parameters:
            return f"it is a parameter: get({name!r}) reads it, set({name!r}, …) sets it"
        has = {"parameters": sorted(cls.parameters), "channels": sorted(poll.channel for poll in cls.channels)}
        besides = "".join(f"; its {kind} are {', '.join(names)}" for kind, names in has.items() if names)
        return f"there are {', '.join(sorted(cls.operations)) or 'none'}{besides}"

    @classmethod
    def may_move(cls, message: Any) -> bool:
        """Whether this message may move or emit something."""
        if isinstance(message, SetParameter):
            parameter = cls.parameters.get(message.name)
            return parameter is not None and parameter.emits
        spec = cls.spec_for(message)
        return spec is not None and spec.may_move(message)

    @classmethod
    def spec_for(cls, message: object) -> HandlerSpec | None:
        """What the handler of this message promises, if there is one."""
        return cls.handlers.get(type(message))

    async def connect(self) -> None:
        """Prepare the device: override it. Nothing that moves or emits may be done here."""

    async def disconnect(self) -> None:
        """Give the device back: override it. Runs also after a `connect` that failed."""

    async def recover(self) -> None:
        """Bring the device back after a fault: override it if more than reconnecting is needed."""
        await self.connect()

    async def on_start(self) -> None:
        """Connect; apply the settings of the lab file or, after a restart, those last accepted; go on acquiring.

        The parameters that the lab file only names are read, so that the parameter table has them.
        """
        self.context.report(InstrumentState.CONNECTING, "")
        await self.connect()
        settings: dict[str, Any] = self.context.memory.setdefault("settings", dict(self.definition.settings))
        for name, value in list(settings.items()):
            if not self.setting(name).emits:
                await self.set_parameter(SetParameter(name, value))
        for name in self.definition.watched:
            await self.get_parameter(GetParameter(name))
        self.context.report(InstrumentState.READY, "")
        if "acquiring" in self.context.memory:
            await self._go_on_acquiring(StartAcquisition(self.context.memory["acquiring"]))

    async def _go_on_acquiring(self, message: StartAcquisition) -> None:
        if self.context.latched() and self._moves_now(message):
            del self.context.memory["acquiring"]
            _log.warning("acquisition withheld: a stop is latched", instrument=self.definition.id)
            return
        await self.start_acquisition(message)

    async def on_stop(self, reason: StopReason) -> None:
        """End the streams and disconnect."""
        self._acquiring.clear()
        try:
            await self.disconnect()
        finally:
            self.streams.flush()
            self.context.parameters.mark_stale("v4", self.definition.id)

    def refusal(self, message: Any) -> DuodaqError | None:
        """UnsafeStateError for what may move or emit while a stop-all is latched, whichever way it came here."""
        if not self.context.latched() or SAFE_ACTION.get() or not self._moves_now(message):
            return None
        return UnsafeStateError(
            "a stop-all is latched until a person resets it",
            instrument=self.definition.id,
            command=type(message).__name__,
            left="nothing was sent",
        )

    def _moves_now(self, message: Any) -> bool:
        try:
            return self.may_move(self.message_for(message))
        except DuodaqError:
            return False  # its handler says what is wrong with it

    def end_waiting(self, axis: str | None) -> None:
        """A stop has come: end what waits in the mailbox and moves or emits; of one axis only what is about that."""
        self.ref.end_moving("a stop came before it began", lambda message: axis is None or _is_about(message, axis))

    def setting(self, name: str) -> Parameter:
        """The parameter called `name`.

        Raises:
            OutOfRangeError: There is none.
        """
        known = self.known_parameters()
        if name not in known:
            raise OutOfRangeError(f"no parameter {name!r}; there are {', '.join(sorted(known)) or 'none'}")
        return known[name]

    def known_parameters(self) -> Mapping[str, Parameter]:
        """All parameters by name; override it where they depend on the lab file."""
        return self.parameters

    def polled(self) -> tuple[PollDefinition, ...]:
        """All channels that are polled while acquiring."""
        named = {poll.channel: poll for poll in (*self.channels, *self.definition.polls)}
        return tuple(named.values())

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """All channels that can be subscribed to."""
        return tuple(ChannelInfo(self.definition.id, p.channel, p.unit, "scalar", "v4") for p in self.polled())

    def publish_scalar(self, channel: str, value: float, unit: str = "", t_ns: int | None = None) -> Scalar:
        """Give one number to the subscribers, and return it as a measurement; `t_ns` is UTC, now without one."""
        return self.streams.scalar(channel, value, unit, t_ns)

    def keep(self, name: str, value: Any) -> None:
        """Have a parameter's value set again after a restart, also in another process; not for what emits."""
        self.context.memory.setdefault("settings", {})[name] = value
        if self.context.keep is not None:
            self.context.keep(self.definition.id, name, value)

    def note(self, name: str, value: Any, unit: str = "") -> None:
        """Write a line of the parameter table."""
        self.context.parameters.put("v4", self.definition.id, name, value, unit)

    async def read_channel(self, poll: PollDefinition) -> float:
        """One reading of a polled channel: a parameter to `read`, or a method of the actor to `call`."""
        if poll.read is not None:
            return float(await self.setting(poll.read).read(self))
        method = getattr(self, poll.call or poll.channel, None)
        if method is None:
            raise OutOfRangeError(f"channel {poll.channel}: there is nothing called {poll.call or poll.channel!r}")
        return float(await method(*poll.args))

    @handler(GetParameter, idempotent=True)
    async def get_parameter(self, message: GetParameter) -> Any:
        """Read a parameter from the device, and note it."""
        parameter = self.setting(message.name)
        value = await parameter.read(self)
        self.note(message.name, value, parameter.unit)
        return value

    @handler(SetParameter, moves=True)
    async def set_parameter(self, message: SetParameter) -> Any:
        """Set a parameter; the reply is what the device accepted."""
        parameter = self.setting(message.name)
        if parameter.write is None:
            raise LifecycleError(f"{message.name} can only be read")
        try:
            accepted = await parameter.write(self, message.value)
        except (TypeError, ValueError) as error:
            if isinstance(error, DuodaqError) or isinstance(message.value, int | float):
                raise
            raise OutOfRangeError(f"{message.name} does not take {message.value!r:.80}: {error}") from error
        if not parameter.emits:
            self.keep(message.name, message.value)
        self.note(message.name, accepted, parameter.unit)
        return accepted

    @handler(ReadChannel, idempotent=True, operation=True)
    async def read(self, message: ReadChannel) -> Measurement:
        """Take one measurement now; it is published like any other."""
        return await self.measure(message.channel)

    @handler(Execute, moves=True, operation=True)
    async def execute(self, message: Execute) -> Any:
        """Carry out an operation by its name, through this actor's own mailbox."""
        wanted = self.message_for(message)
        operation = self.ref.operate(wanted)
        try:
            return await operation
        finally:
            operation.cancel()

    @handler(StartAcquisition)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        """Begin to read the polled channels; the options are the instrument's own."""
        if self._acquiring:
            raise LifecycleError("it acquires already", left="it goes on")
        if message.options:
            raise OutOfRangeError(f"it takes no option {', '.join(message.options)}", left="nothing was started")
        self.begin_polling()
        self.context.report(InstrumentState.ACQUIRING, "")

    @handler(StopAcquisition)
    async def stop_acquisition(self, message: StopAcquisition) -> None:
        """End what StartAcquisition began, readings in hand included, and publish them; nothing happens without it."""
        ending = tuple(self._acquiring)
        self._acquiring.clear()
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=2 * _LAST_READING_S)
        self.streams.flush()
        self.context.report(InstrumentState.READY, "")

    @handler(Recover)
    async def handle_recover(self, message: Recover) -> None:
        """Reconnect the device."""
        await self.recover()
        acquiring = self._acquiring or "acquiring" in self.context.memory
        self.context.report(InstrumentState.ACQUIRING if acquiring else InstrumentState.READY, "")

    @handler(Stop, urgent=True)
    async def handle_stop(self, message: Stop) -> None:
        """Stop what moves or emits: the stop bytes of the lab file or of the port's codec, if there are any."""
        self.end_waiting(message.axis)
        if self.context.port is None:
            return
        codec = self.context.port.codec
        data = self.definition.stop or (codec.stop_bytes(message.axis) if codec is not None else None)
        if data is not None:
            await self.context.break_in(data, True)

    def begin_polling(self) -> None:
        """Start a loop for each polled channel, owned by this incarnation."""
        for poll in self.polled():
            self.keep_running(poll.channel, poll.every_s, partial(self.measure, poll.channel))

    def keep_running(self, name: str, every_s: float, once: Callable[[], Awaitable[Any]]) -> None:
        """Call `once` every `every_s` seconds while acquiring; a failing one is said, counted and tried again."""
        self._acquiring.append(self.run_beside(self._every(name, every_s, once), name))

    async def measure(self, channel: str) -> Measurement:
        """Take one measurement of a channel and publish it: override it for channels that are not polled.

        Raises:
            OutOfRangeError: There is no such channel.
        """
        for poll in self.polled():
            if poll.channel == channel:
                return self.publish_scalar(channel, await self.read_channel(poll), poll.unit)
        known = ", ".join(info.channel for info in self.channel_infos()) or "none"
        raise OutOfRangeError(f"no channel {channel!r} can be read; there are {known}")

    async def _every(self, name: str, every_s: float, once: Callable[[], Awaitable[Any]]) -> None:
        loop = asyncio.get_running_loop()
        counts: dict[str, int] = self.context.memory.setdefault("poll_failures", {})
        failures = 0
        while True:
            began_s = loop.time()
            try:
                await self._to_its_end(name, once())
            except DuodaqError as error:
                failures += 1
                counts[name] = counts.get(name, 0) + 1
                self._fell_ill(name, error)
            else:
                failures = 0
                self._got_well(name)
            wait_s = every_s if not failures else min(max(every_s, 0.05 * 2**failures), max(every_s, _SLOWEST_RETRY_S))
            await pause(max(0.0, wait_s - (loop.time() - began_s)))

    async def _to_its_end(self, name: str, reading: Awaitable[Any]) -> None:
        """A reading that whoever ends the polling lets end, for a little while: what the device has said it says once.

        One that takes longer is cut off, and that is said: its device may have counted it.
        """
        task = asyncio.ensure_future(reading)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=_LAST_READING_S)
            facts = {"instrument": self.definition.id, "channel": name}
            if not task.done():
                _log.warning("the last reading was cut off", **facts, after_s=_LAST_READING_S)
            elif not task.cancelled() and (error := task.exception()) is not None:
                _log.debug("the last reading failed", **facts, error=str(error))
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _fell_ill(self, name: str, error: DuodaqError) -> None:
        if name not in self._unwell and not isinstance(error, OutOfRangeError | UnsafeStateError):
            self._unwell.add(name)
            self.context.report(InstrumentState.ERROR, str(error))
        _log.warning("polling failed", instrument=self.definition.id, channel=name, error=str(error))

    def _got_well(self, name: str) -> None:
        if name in self._unwell:
            self._unwell.discard(name)
            if not self._unwell:
                self.context.report(InstrumentState.ACQUIRING, "")


def _is_about(message: Any, axis: str) -> bool:
    name = message.name if isinstance(message, SetParameter) else ""
    return getattr(message, "axis", None) == axis or name.startswith(f"{axis}.")
