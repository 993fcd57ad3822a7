from __future__ import annotations

import concurrent.futures
import contextlib
import uuid
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, cast

import msgspec

from duodaq.app._channel import Channel
from duodaq.app._control import Holder
from duodaq.app._pages import axis_page, instrument_page, shown
from duodaq.app._reading import Reading
from duodaq.clock import one_interrupt
from duodaq.errors import DeliveryError, LifecycleError, NotInControlError
from duodaq.units import number_in

_OWN = "_duodaq_"
_MEMBER = "member"


class InstrumentHandle:
    """One instrument, whichever runtime it lives in.

    ::

        lab.dmm.read("voltage")        # a Reading: value, unit, time
        lab.dmm.driver.nplc = 10       # the driver's own interface
        lab.stage.x.move(12.5)         # an axis, by its name in the lab file
    """

    def __init__(self, channel: Channel, facts: dict[str, Any]) -> None:
        self._channel = channel
        self._facts = facts
        self._axes = {a["name"]: AxisHandle(self, channel, a) for a in facts["axes"]}

    @property
    def id(self) -> str:
        """Its name in the lab file."""
        return self._facts["id"]

    @property
    def runtime(self) -> str:
        """The runtime it lives in now, "v2" or "v4"."""
        return self.status()["runtime"]

    @property
    def driver_name(self) -> str:
        """Its driver, as the lab file names it."""
        return self._facts["driver"]

    @property
    def driver(self) -> DriverProxy:
        """The driver's own interface: attributes are read and set, methods called, in the instrument's own thread."""
        return DriverProxy(self)

    @property
    def axes(self) -> dict[str, AxisHandle]:
        """Its axes, by name; empty if it does not move."""
        return dict(self._axes)

    def channels(self) -> list[str]:
        """The names of the channels it measures."""
        found = self._channel.request("channels", {})
        return [c["channel"] for c in found if c["instrument"] == self.id and c["readable"]]

    def read(self, channel: str | None = None, deadline_s: float | None = None) -> Reading:
        """Take one measurement now; of the only channel if none is named. It is published and recorded too.

        Raises:
            LifecycleError: It has several channels, or none, and none was named.
        """
        return self._channel.wait(self.read_soon(channel or self._only_channel(), deadline_s))

    def read_soon(self, channel: str, deadline_s: float | None = None) -> concurrent.futures.Future[Reading]:
        """Begin one measurement; the future ends with the Reading."""
        params = {"instrument": self.id, "channel": channel, "deadline_s": deadline_s}
        return self._channel.submit("read", params, lambda answer: Reading(**answer))

    def get(self, name: str, deadline_s: float | None = None) -> Any:
        """Read a parameter from the device."""
        return self._command("get", {"name": name}, deadline_s)

    def set(self, name: str, value: Any, deadline_s: float | None = None) -> Any:
        """Set a parameter; what the device accepted."""
        return self._command("set", {"name": name, "value": value}, deadline_s)

    def call(self, name: str, *args: Any, deadline_s: float | None = None, **kwargs: Any) -> Any:
        """Call a method of the driver, or an operation of the actor, and wait for its end."""
        return self._command("execute", {"name": name, "args": args, "kwargs": kwargs}, deadline_s)

    def call_soon(self, name: str, *args: Any, deadline_s: float | None = None) -> concurrent.futures.Future[Any]:
        """Begin a method or an operation; cancelling the future cancels it."""
        return self._submit("execute", {"name": name, "args": args}, deadline_s)

    def parameters(self) -> list[dict[str, Any]]:
        """What the lab's parameter table knows of it: each with name, value, unit, time and whether it is stale."""
        return [entry for entry in self._channel.request("parameters", {}) if entry["instrument"] == self.id]

    def set_soon(self, name: str, value: Any, deadline_s: float | None = None) -> concurrent.futures.Future[Any]:
        """Begin to set a parameter; the future ends with what the device accepted."""
        return self._submit("set", {"name": name, "value": value}, deadline_s)

    def get_soon(self, name: str, deadline_s: float | None = None) -> concurrent.futures.Future[Any]:
        """Begin to read a parameter from the device."""
        return self._submit("get", {"name": name}, deadline_s)

    def fly(self, channel: str, options: dict[str, Any] | None = None) -> Flight:
        """Collect a stream, while something else goes on, until the flight is landed.

        Args:
            channel: Which of its channels.
            options: Start the acquisition with these, and stop it at the end; None: leave it as it is.
        """
        return Flight(self._channel, self.id, channel, options)

    def start(self, **options: Any) -> Any:
        """Start acquiring: the polls of a V2 instrument, the stream of an actor."""
        return self._command("start_acquisition", {"options": options}, None)

    def finish(self) -> Any:
        """Stop acquiring."""
        return self._command("stop_acquisition", {}, None)

    def snap(self, deadline_s: float | None = None, **options: Any) -> Any:
        """Take one frame now; its pixels as an array of shape (height, width)."""
        return self._command("snap", {"options": options}, deadline_s)

    def stop(self, axis: str | None = None) -> int | None:
        """Stop it, or one axis of it, at once.

        Returns:
            When the bytes were on the wire (UTC ns), None if only its driver could be told.
        """
        return self._channel.request("stop", {"instrument": self.id, "axis": axis})

    def recover(self) -> Any:
        """Leave the error state: reconnect."""
        return self._command("recover", {}, 30.0)

    def restart(self) -> None:
        """Close and start it again; nothing else notices."""
        self._channel.request("restart", {"instrument": self.id})

    def control(self, name: str | None = None, *, take_over: bool = False) -> Control:
        """Take control of it: until it is released, others may read and stop it, and nothing else.

        ::

            with lab.stage.control("anna"):
                lab.stage.x.move(12.5)

        Nobody needs it who works alone: what nobody holds is free for all. It ends with the block, with `release`, or
        with this program.

        Args:
            name: What you are called; the user of this program, if nobody is named.
            take_over: Take it from whoever has it. That is logged, and what he asks for next is refused.

        Raises:
            NotInControlError: Somebody else has it, and keeps it.
        """
        params = {"instrument": self.id, "name": name, "take_over": take_over}
        return Control(self, msgspec.convert(self._channel.request("control", params), Holder))

    def release(self) -> bool:
        """Give control of it up; whether there was any.

        Raises:
            NotInControlError: Somebody else has it, and keeps it.
        """
        return self._channel.request("release", {"instrument": self.id})

    def holder(self) -> Holder | None:
        """Who holds control of it; None if nobody does, so that it is free for all."""
        told = self._channel.request("holders", {}).get(self.id)
        return None if told is None else msgspec.convert(told, Holder)

    def status(self) -> dict[str, Any]:
        """Its state, with cause and since when.

        Raises:
            LifecycleError: It is not in the lab any more.
        """
        found = next((s for s in self._channel.request("status", {})["instruments"] if s["id"] == self.id), None)
        if found is None:
            raise LifecycleError("it is not in the lab any more", instrument=self.id)
        return found

    def __getattr__(self, name: str) -> AxisHandle:
        axis = self.__dict__.get("_axes", {}).get(name)
        if axis is None:
            known = ", ".join(self.__dict__.get("_axes", {})) or "none"
            raise AttributeError(f"{name!r} is no axis (there are: {known}); the driver's own is at .driver.{name}")
        return axis

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._axes]

    def _repr_html_(self) -> str:
        return shown(self.id, self._page)

    def _page(self) -> str:
        status = self.status()
        found = [one for one in self._channel.request("channels", {}) if one["instrument"] == self.id]
        return instrument_page(self._facts, status, found, self.parameters())

    def __repr__(self) -> str:
        known = f"{self.id}: {self.driver_name}"
        try:
            return f"<{known} in {self.runtime}>"
        except LifecycleError as error:
            return f"<{known}, not in the lab any more>" if error.instrument else f"<{known}; {error}>"
        except DeliveryError as error:
            return f"<{known}; {error}>"

    def _part(self, name: str) -> Any:
        """What the driver has under that name; a parameter is not read, only named as one."""
        return self._command("get", {"name": name, "part": True}, None)

    def _only_channel(self) -> str:
        channels = self.channels()
        if len(channels) != 1:
            known = ", ".join(channels) or "none"
            raise LifecycleError(f"name the channel to read; there are: {known}", instrument=self.id)
        return channels[0]

    def _submit(self, kind: str, fields: dict[str, Any], deadline_s: float | None) -> concurrent.futures.Future[Any]:
        params = {"instrument": self.id, "kind": kind, "fields": fields, "deadline_s": deadline_s}
        return self._channel.submit("command", params)

    def _command(self, kind: str, fields: dict[str, Any], deadline_s: float | None) -> Any:
        return self._channel.wait(self._submit(kind, fields, deadline_s))


class Control:
    """Control of an instrument, as it was taken; the end of its block gives it up."""

    def __init__(self, instrument: InstrumentHandle, holder: Holder) -> None:
        self.instrument = instrument
        self.holder = holder

    def release(self) -> bool:
        """Give it up; see `InstrumentHandle.release`."""
        return self.instrument.release()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(NotInControlError):  # it was taken over meanwhile
            self.release()

    def __repr__(self) -> str:
        return f"<control of {self.instrument.id}: {self.holder}>"


class AxisHandle:
    """One axis of a motion controller. Positions are in `unit`; Ctrl-C during a move stops the axis."""

    def __init__(self, instrument: InstrumentHandle, channel: Channel, facts: dict[str, Any]) -> None:
        self._instrument = instrument
        self._channel = channel
        self.axis: str = facts["name"]
        self.unit: str = facts["unit"]
        self.limits: tuple[float, float] | None = None if facts["limits"] is None else tuple(facts["limits"])

    @property
    def address(self) -> str:
        """How the lab names it: ``stage.x``."""
        return f"{self._instrument.id}.{self.axis}"

    @property
    def name(self) -> str:
        """How data names it: instrument and axis."""
        return f"{self._instrument.id}_{self.axis}"

    def move(self, position: float, deadline_s: float | None = None) -> None:
        """Move there and wait until the axis has arrived.

        Raises:
            TypeError: It is no number. Nothing was sent.
            OutOfRangeError: Beyond the limits. Nothing was sent.
            UnsafeStateError: A stop is latched. Nothing was sent.
        """
        self._carry_out(lambda: self.move_soon(position, deadline_s))

    def move_by(self, distance: float, deadline_s: float | None = None) -> None:
        """Move by a distance and wait until the axis has arrived."""
        by = self._number(distance)
        begin = partial(self._instrument.call_soon, "move_relative", self.axis, by, deadline_s=deadline_s)
        self._carry_out(begin)

    def move_soon(self, position: float, deadline_s: float | None = None) -> concurrent.futures.Future[Any]:
        """Begin a move; the future ends when the axis has arrived. Cancelling it stops the axis."""
        return self._instrument.call_soon("move", self.axis, self._number(position), deadline_s=deadline_s)

    def home(self, deadline_s: float | None = None) -> None:
        """Search the home position and wait until it is found."""
        self._carry_out(partial(self._instrument.call_soon, "home", self.axis, deadline_s=deadline_s))

    def read_position(self) -> Reading:
        """Where the axis is now."""
        return self._instrument.read(f"{self.axis}.position")

    def read_position_soon(self) -> concurrent.futures.Future[Reading]:
        """Begin to read where the axis is."""
        return self._instrument.read_soon(f"{self.axis}.position")

    def stop(self) -> int | None:
        """Stop this axis at once."""
        return self._instrument.stop(self.axis)

    def _repr_html_(self) -> str:
        return shown(f"axis {self.address}", self._page)

    def _page(self) -> str:
        known = {entry["name"]: entry for entry in self._instrument.parameters()}
        return axis_page(self.address, self.unit, self.limits, known.get(f"{self.axis}.position"))

    def __repr__(self) -> str:
        limits = f", {self.limits[0]:g} … {self.limits[1]:g}" if self.limits else ""
        return f"<axis {self._instrument.id}.{self.axis}, {self.unit}{limits}>"

    def _number(self, given: Any) -> float:
        try:
            return number_in(self.unit, given)
        except TypeError as error:
            raise TypeError(f"{self.address} moves to a number, in {self.unit}; {error}") from error.__cause__

    def _carry_out(self, begin: Callable[[], concurrent.futures.Future[Any]]) -> None:
        with one_interrupt():
            try:
                self._channel.wait(begin())
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C: the axis must not go on alone
                    self.stop()
                raise


class Flight:
    """A stream that is collected at the lab while something else goes on. It ends with the program that began it.

    Attributes:
        rows: Ends with the flight: ``sequence``, ``t_ns``, ``value`` (of numbers) of each row, and how many were
            ``lost`` to it. Cancelling it ends the flight, and its acquisition.
        started: Ends when the acquisition runs: True, or False if it could not be started; `rows` has the error then.
    """

    def __init__(self, channel: Channel, instrument: str, stream: str, options: dict[str, Any] | None) -> None:
        self._channel = channel
        self._id = uuid.uuid4().hex
        params = {"flight": self._id, "instrument": instrument, "channel": stream, "options": options}
        self.rows: concurrent.futures.Future[dict[str, Any]] = channel.submit("fly", params)
        self.started: concurrent.futures.Future[bool] = channel.submit("fly_started", {"flight": self._id})

    def land(self, enough: int | None = None) -> None:
        """End it now, or once it has `enough` rows. `rows` ends with what it has."""
        self._channel.request("fly_land", {"flight": self._id, "enough": enough})


class DriverProxy:
    """The hosted driver's attributes and methods, as if it were here. Nothing is copied or pickled but values."""

    def __init__(self, instrument: InstrumentHandle, path: str = "") -> None:
        object.__setattr__(self, f"{_OWN}instrument", instrument)
        object.__setattr__(self, f"{_OWN}path", path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what Python and notebooks ask every object for is nothing to ask the device
            raise AttributeError(f"{name!r} is private to the driver")
        instrument, path = self._duodaq_instrument, self._duodaq_path + name
        value: Any = instrument._part(path)
        kind = cast("dict[str, Any]", value).get(_MEMBER) if isinstance(value, dict) else None
        if kind is None:
            return cast("Any", value)
        if kind == "method":
            return _method(instrument, path)
        return (ParameterProxy if kind == "parameter" else DriverProxy)(instrument, f"{path}.")

    def __setattr__(self, name: str, value: Any) -> None:
        self._duodaq_instrument.set(self._duodaq_path + name, value)

    def __repr__(self) -> str:
        path = self._duodaq_path.rstrip(".")
        return f"<{path or 'driver'} of {self._duodaq_instrument!r}>"


class ParameterProxy(DriverProxy):
    """A parameter of the driver, as QCoDeS has them: called without an argument it is read, with one it is set."""

    def __call__(self, *value: Any) -> Any:
        instrument, name = self._duodaq_instrument, self._duodaq_path.rstrip(".")
        return instrument.set(name, *value) if value else instrument.get(name)


def _method(instrument: InstrumentHandle, path: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return instrument.call(path, *args, **kwargs)

    call.__name__ = call.__qualname__ = path
    return call
