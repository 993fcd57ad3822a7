"""The Newport 1830-C optical power meter, over its shared port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from duodaq.clock import utc_ns
from duodaq.drivers.newport1830c._codec import UNIT_CODES, MeterStatus, parse_integer, parse_reading, parse_status
from duodaq.errors import OutOfRangeError, PortTimeoutError, RefusedError, ReplyFormatError
from duodaq.model import PowerReading
from duodaq.ports import Lease, Port

__all__ = ["Newport1830CDriver"]

T = TypeVar("T")
_WAVELENGTHS_NM = (1, 10000)
_BLINDED = MeterStatus.SATURATED | MeterStatus.OVER_RANGE


class Newport1830CDriver:
    """Reads the power and sets the few things that the meter can do.

    Args:
        dbm_code: Which code of ``U`` means dBm; the sources disagree between 3 (the default) and 2. dB is the other.
    """

    def __init__(self, port: Port, holder: str, *, dbm_code: int = 3) -> None:
        self._port = port
        self._holder = holder
        self._units = UNIT_CODES if dbm_code == 3 else {1: "W", 2: "dBm", 3: "dB", 4: "REL"}
        self._unit = "W"
        self._wavelength_nm: float | None = None

    @property
    def unit(self) -> str:
        """The unit of readings, as last read or set."""
        return self._unit

    async def open(self) -> None:
        """Switch the echo off, clear the status, and read unit and wavelength. No other setting changes.

        Raises:
            PortTimeoutError: Nobody answered.

        Wire:
            ``E0\\n``, ``C\\n``, ``U?\\n`` → ``1``, ``W?\\n`` → ``0633``
        """
        async with self._port.lease(self._holder) as lease:
            await lease.write(b"E0\n")
            await lease.write(b"C\n")
        await self.read_unit()
        await self.read_wavelength_nm()

    async def read_power(self) -> PowerReading:
        """Read the power at the detector, in the unit the meter is set to.

        A reading that does not come or is garbled (about 1 in 500) is asked for once more.

        Returns:
            Value (float64), unit, wavelength_nm, and t_ns (UTC, host clock when the reply's terminator arrived).

        Raises:
            PortTimeoutError: No reply within the port's time-out, twice. The line has been drained.
            ReplyFormatError: Not a number, twice.
            OutOfRangeError: The detector is saturated or over range (status bits 2, 3). Nothing was retried, and the
                status has been cleared.

        Wire:
            ``D?\\n`` → ``+.75E-9\\n``, ``Q?\\n`` → ``128\\n``        Source: 1830-C manual p. 51 for the status byte.
        """
        return await self._twice(self._read_power)

    async def read_wavelength_nm(self) -> float:
        """The wavelength the meter corrects for.  Wire: ``W?\\n`` → ``0633``"""
        self._wavelength_nm = float(await self._integer(b"W?\n"))
        return self._wavelength_nm

    async def set_wavelength_nm(self, wavelength_nm: float) -> float:
        """Set the wavelength, in whole nanometres from 1 to 10000; what the meter then reports.

        Raises:
            OutOfRangeError: Outside that; nothing was sent.
            RefusedError: The detector cannot be corrected for it (status bit 0). The meter keeps what it had.

        Wire:
            ``W0633\\n``, ``Q?\\n``, ``W?\\n``
        """
        low, high = _WAVELENGTHS_NM
        if not low <= wavelength_nm <= high:
            raise OutOfRangeError(f"{wavelength_nm:g} nm is outside {low} to {high} nm", left="nothing was sent")
        await self._set(f"W{round(wavelength_nm):04d}")
        return await self.read_wavelength_nm()

    async def read_unit(self) -> str:
        """The unit of readings: W, dB, dBm or REL.  Wire: ``U?\\n`` → ``1``"""
        code = await self._integer(b"U?\n")
        if code not in self._units:
            raise ReplyFormatError(f"no unit has the code {code}", reply=str(code).encode())
        self._unit = self._units[code]
        return self._unit

    async def set_unit(self, unit: str) -> str:
        """Set the unit of readings; what the meter then reports.  Wire: ``U1\\n``, ``Q?\\n``, ``U?\\n``"""
        codes = {name: code for code, name in self._units.items()}
        if unit not in codes:
            raise OutOfRangeError(f"no unit {unit!r}; there are {', '.join(codes)}", left="nothing was sent")
        await self._set(f"U{codes[unit]}")
        return await self.read_unit()

    async def read_range(self) -> int:
        """The range: 0 automatic, 1 (most sensitive) to 8.  Wire: ``R?\\n``"""
        return await self._integer(b"R?\n")

    async def set_range(self, range_: int) -> int:
        """Set the range, 0 (automatic) to 8; what the meter then reports.  Wire: ``R3\\n``, ``Q?\\n``, ``R?\\n``"""
        return await self._set_small("R", range_, 0, 8)

    async def read_filter(self) -> int:
        """The averaging: 1 slow (16 samples), 2 medium (4), 3 fast (1).  Wire: ``F?\\n``"""
        return await self._integer(b"F?\n")

    async def set_filter(self, filter_: int) -> int:
        """Set the averaging, 1 to 3; what the meter then reports.  Wire: ``F3\\n``, ``Q?\\n``, ``F?\\n``"""
        return await self._set_small("F", filter_, 1, 3)

    async def set_attenuator(self, on: bool) -> int:
        """Tell the meter whether the attenuator is on; what it then reports.  Wire: ``A1\\n``, ``Q?\\n``, ``A?\\n``"""
        return await self._set_small("A", int(on), 0, 1)

    async def set_zero(self, on: bool) -> int:
        """Take the present power as zero, or stop doing so.  Wire: ``Z1\\n``, ``Q?\\n``, ``Z?\\n``"""
        return await self._set_small("Z", int(on), 0, 1)

    async def store_reference(self) -> None:
        """Take the present power as reference for dB and REL.  Wire: ``S\\n``, ``Q?\\n``"""
        await self._set("S")

    async def read_status(self) -> MeterStatus:
        """The status byte; reading clears nothing.  Wire: ``Q?\\n`` → ``128``"""
        return MeterStatus(await self._integer(b"Q?\n"))

    async def _read_power(self) -> PowerReading:
        async with self._port.lease(self._holder) as lease:
            reply = await lease.exchange(b"D?\n")
            t_ns = utc_ns()
            status = parse_status(await lease.exchange(b"Q?\n"))
            if status & _BLINDED:
                await lease.write(b"C\n")
                raise OutOfRangeError(f"the detector is {_blinded(status)}", left="the status has been cleared")
        return PowerReading(parse_reading(reply), self._unit, t_ns, self._wavelength_nm)

    async def _set_small(self, letter: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise OutOfRangeError(f"{letter}{value}: there are {low} to {high}", left="nothing was sent")
        await self._set(f"{letter}{value}")
        return await self._integer(f"{letter}?\n".encode())

    async def _set(self, command: str) -> None:
        async with self._port.lease(self._holder) as lease:
            await lease.write(f"{command}\n".encode())
            status = await self._status(lease)
            if status.refused:
                await lease.write(b"C\n")
                raise RefusedError(
                    f"the meter did not take {command}: {status.name}", code=int(status), text=status.name
                )

    async def _status(self, lease: Lease) -> MeterStatus:
        return parse_status(await lease.exchange(b"Q?\n"))

    async def _integer(self, query: bytes) -> int:
        async def ask() -> int:
            return parse_integer(await self._port.exchange(query, holder=self._holder))

        return await self._twice(ask)

    async def _twice(self, ask: Callable[[], Awaitable[T]]) -> T:
        # A read changes nothing, so it may be repeated; a second failure is the caller's.
        try:
            return await ask()
        except (ReplyFormatError, PortTimeoutError):
            return await ask()


def _blinded(status: MeterStatus) -> str:
    return "saturated" if MeterStatus.SATURATED in status else "over range"
