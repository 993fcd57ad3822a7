"""The Newport 1830-C as an actor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from duodaq.drivers.newport1830c import Newport1830CDriver
from duodaq.errors import OutOfRangeError
from duodaq.model import ChannelInfo, InstrumentState, Measurement, PowerReading, StartAcquisition
from duodaq.v4._message import handler
from duodaq.v4.instruments._instrument import InstrumentActor, Parameter
from duodaq.v4.instruments._messages import ReadPower, SetUnit, SetWavelength

__all__ = ["Newport1830C"]

_DEFAULT_RATE_HZ = 5.0


def _setting(
    read: Callable[[Newport1830CDriver], Awaitable[Any]],
    write: Callable[[Newport1830CDriver, Any], Awaitable[Any]] | None = None,
    unit: str = "",
) -> Parameter:
    async def get(actor: Newport1830C) -> Any:
        return await read(actor.driver)

    async def put(actor: Newport1830C, value: Any) -> Any:
        assert write is not None
        return await write(actor.driver, value)

    return Parameter(get, None if write is None else put, unit)


async def _power(driver: Newport1830CDriver) -> float:
    return (await driver.read_power()).value


class Newport1830C(InstrumentActor):
    """Power on the channel ``power``, in the unit that the meter is set to, ``rate_hz`` times a second."""

    operations: ClassVar[Mapping[str, type]] = {
        "read_power": ReadPower,
        "set_wavelength": SetWavelength,
        "set_unit": SetUnit,
    }
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "power": _setting(_power),
        "wavelength_nm": _setting(Newport1830CDriver.read_wavelength_nm, Newport1830CDriver.set_wavelength_nm, "nm"),
        "unit": _setting(Newport1830CDriver.read_unit, Newport1830CDriver.set_unit),
        "range": _setting(Newport1830CDriver.read_range, Newport1830CDriver.set_range),
        "filter": _setting(Newport1830CDriver.read_filter, Newport1830CDriver.set_filter),
    }

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """The power, and what the lab file adds."""
        return (ChannelInfo(self.definition.id, "power", self._unit, "scalar", "v4"), *super().channel_infos())

    @property
    def _unit(self) -> str:
        return self.driver.unit if hasattr(self, "driver") else "W"

    async def connect(self) -> None:
        """Switch the echo off, and read unit and wavelength."""
        self.driver = Newport1830CDriver(
            self.port, self.context.holder, dbm_code=int(self.definition.args.get("dbm_code", 3))
        )
        await self.driver.open()
        self.note("unit", self.driver.unit)
        self.note("wavelength_nm", await self.driver.read_wavelength_nm(), "nm")

    @handler(ReadPower, idempotent=True)
    async def read_power(self, message: ReadPower) -> PowerReading:
        """Read the power once."""
        return await self.driver.read_power()

    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        """Set the wavelength; the reply is what the meter accepted."""
        accepted = await self.driver.set_wavelength_nm(message.wavelength_nm)
        self.keep("wavelength_nm", message.wavelength_nm)
        self.note("wavelength_nm", accepted, "nm")
        return accepted

    @handler(SetUnit)
    async def set_unit(self, message: SetUnit) -> str:
        """Set the unit; the reply is what the meter accepted."""
        accepted = await self.driver.set_unit(message.unit)
        self.keep("unit", message.unit)
        self.note("unit", accepted)
        return accepted

    @handler(StartAcquisition)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        """Begin the stream; the option ``rate_hz`` is how often the power is read."""
        options: dict[str, Any] = dict(message.options)
        rate_hz = float(options.pop("rate_hz", self.definition.args.get("rate_hz", _DEFAULT_RATE_HZ)))
        if not 0 < rate_hz <= 100:
            raise OutOfRangeError(f"{rate_hz} readings a second are not possible", left="nothing was started")
        await super().start_acquisition(StartAcquisition(options))
        self.keep_running("power", 1 / rate_hz, partial(self.measure, "power"))
        self.context.report(InstrumentState.ACQUIRING, "")

    async def measure(self, channel: str) -> Measurement:
        """One reading of the power, or of a channel of the lab file."""
        if channel != "power":
            return await super().measure(channel)
        reading = await self.driver.read_power()
        return self.publish_scalar("power", reading.value, reading.unit, reading.t_ns)
