"""The Mai Tai as an actor: its shutter opens only when armed, and its watchdog is fed only while the mailbox is served.

Rules that whoever edits this must keep:

* Nothing here arms, opens or switches on by itself: not at start, not after a restart, not when the line is back.
* Stop and Disarm are urgent and only put bytes on the wire; reading back takes a second and would keep others waiting.
* Closing needs no permit, and ends every opening that waits or is under way.
* Nothing that runs beside the mailbox talks to the laser when the mailbox has not been served for a while: any query
  would keep the laser's watchdog quiet, and it has to bark when this actor hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from duodaq.clock import pause
from duodaq.drivers.maitai import MaiTaiDriver
from duodaq.errors import ConfigError, DuodaqError, OutOfRangeError, UnsafeStateError
from duodaq.model import (
    ChannelInfo,
    InstrumentState,
    LaserReading,
    Measurement,
    Scalar,
    SetParameter,
    StartAcquisition,
    Stop,
)
from duodaq.v4._message import StopReason, handler
from duodaq.v4.instruments._context import InstrumentContext
from duodaq.v4.instruments._instrument import InstrumentActor, Parameter
from duodaq.v4.instruments._interlock import Interlock
from duodaq.v4.instruments._messages import (
    Arm,
    CloseShutter,
    Disarm,
    FeedWatchdog,
    MakeSafe,
    OpenShutter,
    ReadLaser,
    SetWavelength,
    SwitchOff,
    SwitchOn,
    WarmUp,
)

__all__ = ["MaiTai"]

_RATE_HZ = 1.0
_FEED_S = 1.0
_CHANNELS = {"wavelength_nm": "nm", "power_w": "W", "shutter": ""}


def _reading(read: Callable[[MaiTaiDriver], Awaitable[Any]], unit: str = "") -> Callable[..., Parameter]:
    async def get(actor: MaiTai) -> Any:
        return await read(actor.driver)

    def made(write: Callable[[MaiTai, Any], Awaitable[Any]] | None = None) -> Parameter:
        return Parameter(get, write, unit, emits=write is not None)

    return made


async def _tune(actor: MaiTai, wavelength_nm: float) -> float:
    return await actor.set_wavelength(SetWavelength(wavelength_nm))


async def _move_shutter(actor: MaiTai, is_open: Any) -> bool:
    if is_open:
        await actor.open_shutter(OpenShutter())
    else:
        await actor.close_shutter(CloseShutter())
    return bool(is_open)


async def _armed(actor: MaiTai) -> bool:
    return actor.armed


class MaiTai(InstrumentActor):
    """Tunes, warms up and opens one laser; streams ``wavelength_nm``, ``power_w`` and ``shutter``.

    ``args`` of the lab file: ``limits_nm`` (within the laser's own), ``watchdog_s`` (the laser switches its pump off
    when it has heard nothing for so long; without it the laser keeps its setting), ``rate_hz``, ``poll_s``,
    ``timeout_s``, ``shutter_lag_s``.
    """

    operations: ClassVar[Mapping[str, type]] = {
        "arm": Arm,
        "disarm": Disarm,
        "open_shutter": OpenShutter,
        "close_shutter": CloseShutter,
        "make_safe": MakeSafe,
        "warm_up": WarmUp,
        "switch_on": SwitchOn,
        "switch_off": SwitchOff,
        "set_wavelength": SetWavelength,
        "read_laser": ReadLaser,
    }
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "wavelength_nm": _reading(MaiTaiDriver.read_wavelength_nm, "nm")(_tune),
        "setpoint_nm": _reading(MaiTaiDriver.read_setpoint_nm, "nm")(),
        "power_w": _reading(MaiTaiDriver.read_power_w, "W")(),
        "percent_warm": _reading(MaiTaiDriver.read_percent_warm, "%")(),
        "shutter": _reading(MaiTaiDriver.read_shutter)(_move_shutter),
        "armed": Parameter(_armed),
    }

    def __init__(self, context: InstrumentContext) -> None:
        super().__init__(context)
        options = dict(self.definition.args)
        self._rate_hz = float(options.pop("rate_hz", _RATE_HZ))
        watchdog_s = options.pop("watchdog_s", None)
        self._watchdog_s = None if watchdog_s is None else float(watchdog_s)
        if self._watchdog_s is not None and not 1.0 <= self._watchdog_s <= 3600:
            raise ConfigError(
                f"watchdog_s = {watchdog_s} is outside 1 to 3600 s", key=f"instruments.{self.definition.id}.args"
            )
        self._interlock = Interlock()
        self._closings = 0
        self._served_s = 0.0
        self._food_waits = False
        try:
            self.driver = MaiTaiDriver(self.port, context.holder, **options)
        except TypeError as error:
            raise ConfigError(str(error), key=f"instruments.{self.definition.id}.args") from error

    @classmethod
    def may_move(cls, message: Any) -> bool:
        """Whether it may emit or change what is emitted: closing the shutter does neither."""
        if isinstance(message, SetParameter) and message.name == "shutter":
            return bool(message.value)
        return super().may_move(message)

    @property
    def armed(self) -> bool:
        """Whether the shutter may be opened."""
        return self._interlock.armed(self.port.owner.epoch)

    @property
    def _feed_s(self) -> float:
        return min(_FEED_S, (self._watchdog_s or 3.0) / 3)

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """Wavelength, power and shutter, and what the lab file adds."""
        own = self.definition.id
        mine = (ChannelInfo(own, name, unit, "scalar", "v4") for name, unit in _CHANNELS.items())
        return (*mine, *super().channel_infos())

    async def connect(self) -> None:
        """Learn who it is and its limits, set the watchdog and begin to feed it. The beam stays as it is, disarmed."""
        self._interlock.disarm("it has been connected anew")
        await self.driver.open()
        if self._watchdog_s is not None:
            await self.driver.set_watchdog(self._watchdog_s)
        self.note("identity", self.driver.identity)
        self.note("limits_nm", self.driver.limits_nm, "nm")
        self._publish(await self.driver.read_laser())
        self._note_armed()

    async def on_start(self) -> None:
        """As every instrument; then the watchdog is fed."""
        self._serve()
        await super().on_start()
        self._serve()
        self.run_beside(self._feed(), "feed")

    async def on_stop(self, reason: StopReason) -> None:
        """Disarm. A laser that is given back in order keeps its pump: the watchdog that was set is taken away."""
        self._interlock.disarm("its actor has ended")
        if reason is StopReason.STOPPED and self._watchdog_s is not None:
            with contextlib.suppress(DuodaqError):
                await self.driver.set_watchdog(0)
        await super().on_stop(reason)

    @handler(Arm, moves=True)
    async def arm(self, message: Arm) -> None:
        """Permit the shutter to be opened, until something disarms it; the laser has to answer for that."""
        epoch = self.port.owner.epoch
        await self.driver.read_status()
        self._interlock.arm(epoch)
        self._note_armed()

    @handler(Disarm, urgent=True)
    async def disarm(self, message: Disarm) -> None:
        """Take the permit back, and put the bytes on the wire that close the shutter."""
        await self._stop("it was disarmed", None)

    @handler(OpenShutter, moves=True, operation=True)
    async def open_shutter(self, message: OpenShutter) -> None:
        """Open the shutter, if armed; done when it has been read back."""
        closings = self._closings

        def permit() -> None:
            self._interlock.permit(self.port.owner.epoch)
            if closings != self._closings:
                raise UnsafeStateError("it was closed before it had opened", left="nothing was sent")

        await self.driver.open_shutter(permit)
        self.note("shutter", True)

    @handler(CloseShutter, operation=True)
    async def close_shutter(self, message: CloseShutter) -> None:
        """Close the shutter; done when it has been read back. It stays armed."""
        self._closings += 1
        self.ref.end_moving("the shutter is closed before it was opened", _opens)
        await self.driver.close_shutter()
        self.note("shutter", False)

    @handler(MakeSafe, operation=True)
    async def make_safe(self, message: MakeSafe) -> None:
        """Disarm and close the shutter; done when that has been read back."""
        self._interlock.disarm("it was made safe")
        self._note_armed()
        await self.close_shutter(CloseShutter())

    @handler(Stop, urgent=True)
    async def handle_stop(self, message: Stop) -> None:
        """Disarm, and put the stop bytes on the wire: the shutter closes."""
        await self._stop("a stop has disarmed it", message.axis)

    @handler(WarmUp, moves=True, operation=True)
    async def warm_up(self, message: WarmUp) -> None:
        """Warm up, and wait for it; it does not emit then. Cancelled, the wait ends and the laser goes on."""
        await self.driver.warm_up(self.progress)

    @handler(SwitchOn, moves=True, operation=True)
    async def switch_on(self, message: SwitchOn) -> None:
        """Pump a warm laser until it is mode-locked; the shutter stays as it is."""
        await self.driver.switch_on(self.progress)

    @handler(SwitchOff)
    async def switch_off(self, message: SwitchOff) -> None:
        """Stop pumping; it stays warm."""
        await self.driver.switch_off()

    @handler(SetWavelength, moves=True, operation=True)
    async def set_wavelength(self, message: SetWavelength) -> float:
        """Tune, and wait until the laser is there; the reply is where it then is."""
        reached_nm = await self.driver.set_wavelength_nm(message.wavelength_nm, self.progress)
        self.note("wavelength_nm", reached_nm, "nm")
        return reached_nm

    @handler(ReadLaser, idempotent=True)
    async def read_laser(self, message: ReadLaser) -> LaserReading:
        """Wavelength, power and shutter now."""
        reading = await self.driver.read_laser()
        self._publish(reading)
        return reading

    @handler(FeedWatchdog, idempotent=True)
    async def feed_watchdog(self, message: FeedWatchdog) -> None:
        """Ask the laser something, so that it hears that somebody is there; and that this mailbox is served."""
        self._serve()
        self._note_armed()
        with contextlib.suppress(DuodaqError):  # the polls and the next command tell of a line that is ill
            await self.driver.read_status()

    @handler(StartAcquisition)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        """Begin the streams; the option ``rate_hz`` is how often the laser is read."""
        options: dict[str, Any] = dict(message.options)
        rate_hz = float(options.pop("rate_hz", self._rate_hz))
        if not 0 < rate_hz <= 20:
            raise OutOfRangeError(f"{rate_hz} readings a second are not possible", left="nothing was started")
        await super().start_acquisition(StartAcquisition(options))
        self.keep_running("laser", 1 / rate_hz, self._sample)
        self.context.report(InstrumentState.ACQUIRING, "")

    def keep_running(self, name: str, every_s: float, once: Callable[[], Awaitable[Any]]) -> None:
        """As every instrument, but silent while the mailbox is not served."""
        super().keep_running(name, every_s, partial(self._if_served, once))

    async def measure(self, channel: str) -> Measurement:
        """One reading of the wavelength, the power or the shutter, or of a channel of the lab file."""
        if channel not in _CHANNELS:
            return await super().measure(channel)
        return (await self._sample())[channel]

    async def _sample(self) -> dict[str, Scalar]:
        return self._publish(await self.driver.read_laser())

    def _publish(self, reading: LaserReading) -> dict[str, Scalar]:
        values = {name: getattr(reading, "shutter_open" if name == "shutter" else name) for name in _CHANNELS}
        for name, unit in _CHANNELS.items():
            self.note(name, values[name], unit)
        return {
            name: self.publish_scalar(name, float(values[name]), unit, reading.t_ns) for name, unit in _CHANNELS.items()
        }

    async def _stop(self, why: str, axis: str | None) -> None:
        self._interlock.disarm(why)
        self._closings += 1
        self._note_armed()
        await super().handle_stop(Stop(axis))

    def _note_armed(self) -> None:
        self.note("armed", self.armed)

    def _serve(self) -> None:
        self._served_s = asyncio.get_running_loop().time()
        self._food_waits = False

    async def _if_served(self, once: Callable[[], Awaitable[Any]]) -> Any:
        hungry_s = 2 * self._feed_s
        if asyncio.get_running_loop().time() - self._served_s <= hungry_s:
            return await once()
        return None

    async def _feed(self) -> None:
        while True:
            await pause(self._feed_s)
            if not self._food_waits:
                with contextlib.suppress(DuodaqError):  # a full mailbox is not served, and then the laser is not fed
                    self.ref.tell_nowait(FeedWatchdog())
                    self._food_waits = True


def _opens(message: Any) -> bool:
    return isinstance(message, OpenShutter) or (
        isinstance(message, SetParameter) and message.name == "shutter" and bool(message.value)
    )
