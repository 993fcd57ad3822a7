"""The Mai Tai as a tunable laser.

Rules that whoever edits this must keep:

* Limits are checked before a byte of a command is written, and so is the permit to open the shutter: under the lease,
  with nothing awaited between the permit and the bytes.
* The error queue belongs to this driver: it is emptied before a command and read after it under one lease.
* SHUT? tells the old state for about a second: what is asked for is believed only when it has been read back.
* Nothing is switched on, opened or repeated that nobody asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from duodaq.clock import pause, utc_ns
from duodaq.drivers.maitai._codec import CLOSE_SHUTTER
from duodaq.drivers.maitai._replies import LaserError, parse_error, parse_flag, parse_integer, parse_quantity
from duodaq.errors import (
    ConfigError,
    LifecycleError,
    OutOfRangeError,
    PortTimeoutError,
    RefusedError,
    ReplyFormatError,
    ReplyTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import LaserReading
from duodaq.ports import Lease, Port

__all__ = ["LaserStatus", "MaiTaiDriver", "Permit", "Progress"]

T = TypeVar("T")
Progress = Callable[[float, str], None]
Permit = Callable[[], None]
"""Raises unless the shutter may be opened now."""

_QUEUE_LENGTH = 20
_REPLY_S = 3.0
"""Up to 2 s per reply have been seen on hardware."""
_SHUTTER_S = 4.0
_TUNING_S = 60.0
_WARM_UP_S = 600.0
_RAMP_S = 120.0


class LaserStatus(msgspec.Struct, frozen=True):
    """``*STB?``: whether it can emit, and whether it is mode-locked."""

    emitting: bool
    modelocked: bool


class MaiTaiDriver:
    """Reads, tunes, warms up and opens one laser, over its shared port.

    Args:
        limits_nm: What the lab allows, narrower than what the laser can.
        poll_s: How often something that takes its time is looked after; 1 s is what the laser is used to.
        timeout_s: For a reply; below 2 s good replies would be given up.
        shutter_lag_s: For how long SHUT? may tell the old state after a change.
        shutter_timeout_s: How long at most a change of the shutter is waited for.
    """

    def __init__(
        self,
        port: Port,
        holder: str,
        *,
        limits_nm: tuple[float, float] | None = None,
        poll_s: float = 0.5,
        timeout_s: float = _REPLY_S,
        shutter_lag_s: float = 1.2,
        shutter_timeout_s: float = _SHUTTER_S,
    ) -> None:
        self.identity = ""
        self.limits_nm = (0.0, 0.0)
        self._port = port
        self._holder = holder
        self._lab_nm = limits_nm
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._shutter_lag_s = shutter_lag_s
        self._shutter_timeout_s = shutter_timeout_s

    async def open(self) -> None:
        """Read who it is and how far it tunes, and empty its error queue. Nothing of it changes.

        Raises:
            PortTimeoutError: Nobody answered.
            ConfigError: The lab's limits leave nothing of the laser's.

        Wire:
            ``*IDN?\\n``, ``SYST:ERR?\\n`` until empty, ``WAV:MIN?\\n`` → ``690nm``, ``WAV:MAX?\\n`` → ``1040nm``
        """
        self.identity = (await self._ask(b"*IDN?\n", bytes.strip)).decode("latin-1")
        async with self._port.lease(self._holder) as lease:
            await self._empty_queue(lease)
        low = await self._quantity(b"WAV:MIN?\n", "nm")
        high = await self._quantity(b"WAV:MAX?\n", "nm")
        lab_low, lab_high = self._lab_nm or (low, high)
        self.limits_nm = max(low, lab_low), min(high, lab_high)
        if self.limits_nm[0] > self.limits_nm[1]:
            raise ConfigError(
                f"limits_nm = [{lab_low:g}, {lab_high:g}] is outside what the laser can, {low:g} to {high:g} nm",
                key="args.limits_nm",
                remedy="Choose limits within that",
            )

    async def read_laser(self) -> LaserReading:
        """Wavelength, power and shutter.  Wire: ``READ:WAV?\\n``, ``READ:POW?\\n``, ``SHUT?\\n``."""
        wavelength_nm = await self.read_wavelength_nm()
        power_w = await self.read_power_w()
        shutter_open = await self.read_shutter()
        return LaserReading(wavelength_nm, power_w, shutter_open, utc_ns())

    async def read_wavelength_nm(self) -> float:
        """Where it is now, which lags behind a change.  Wire: ``READ:WAV?\\n`` → ``820nm``"""
        return await self._quantity(b"READ:WAV?\n", "nm")

    async def read_setpoint_nm(self) -> float:
        """Where it was sent last.  Wire: ``WAV?\\n`` → ``820nm``"""
        return await self._quantity(b"WAV?\n", "nm")

    async def set_wavelength_nm(self, wavelength_nm: float, progress: Progress | None = None) -> float:
        """Tune, in whole nanometres, and wait until the laser is there; where it then is.

        Raises:
            OutOfRangeError: Beyond the laser's limits or the lab's. Nothing was sent.
            RefusedError: The laser said no. It stays where it was.
            ReplyTimeoutError: Not there within a minute; it may still arrive.

        Wire:
            ``WAV 820\\n``, ``SYST:ERR?\\n``, then ``READ:WAV?\\n`` until ``820nm``
        """
        low, high = self.limits_nm
        if not low <= wavelength_nm <= high:
            raise OutOfRangeError(f"{wavelength_nm:g} nm is outside {low:g} to {high:g} nm", left="nothing was sent")
        target_nm = round(wavelength_nm)
        start_nm = await self.read_wavelength_nm()
        await self._command(f"WAV {target_nm}")
        whole_nm = abs(target_nm - start_nm) or 1.0

        async def there() -> float | None:
            at_nm = await self.read_wavelength_nm()
            _tell(progress, abs(at_nm - start_nm) / whole_nm, f"at {at_nm:g} nm")
            return at_nm if abs(at_nm - target_nm) <= 0.5 else None

        return await self._until(there, _TUNING_S, f"it has not arrived at {target_nm} nm")

    async def read_power_w(self) -> float:
        """The light it makes, whether or not the shutter lets it out.  Wire: ``READ:POW?\\n`` → ``3.000W``"""
        return await self._quantity(b"READ:POW?\n", "W")

    async def read_status(self) -> LaserStatus:
        """Whether it emits and is mode-locked.  Wire: ``*STB?\\n`` → ``3``"""
        bits = await self._ask(b"*STB?\n", parse_integer)
        return LaserStatus(bool(bits & 1), bool(bits & 2))

    async def read_shutter(self) -> bool:
        """Whether the shutter is open; for about a second after a change, how it was.  Wire: ``SHUT?\\n`` → ``0``"""
        return await self._ask(b"SHUT?\n", parse_flag)

    async def open_shutter(self, permit: Permit) -> None:
        """Open the shutter, if `permit` does not raise at the moment of writing; done when it has been read back.

        Raises:
            UnsafeStateError: No permit. Nothing was sent.
            StoppedError: Somebody closed it meanwhile.

        Wire:
            ``SHUT 1\\n``, ``SYST:ERR?\\n``, then ``SHUT?\\n`` until ``1``
        """
        await self._command("SHUT 1", permit)

        try:
            await self._shutter_reads(True, permit)
        except ReplyTimeoutError as error:
            raise StoppedError(error.what, fate="failed", left="the shutter is closed") from None

    async def close_shutter(self) -> None:
        """Close the shutter; done when that has been read back.

        Raises:
            ReplyTimeoutError: It still says that it is open; look at it.

        Wire:
            ``SHUT 0\\n``, then ``SHUT?\\n`` until ``0``
        """
        await self._port.write(CLOSE_SHUTTER, holder=self._holder)
        await self.confirm_closed()

    async def confirm_closed(self) -> None:
        """Wait until the shutter says that it is closed. Raises as `close_shutter`."""

        await self._shutter_reads(False, None)

    async def _shutter_reads(self, wanted: bool, permit: Permit | None) -> None:
        # A reading as wanted may be the old one: it counts after a reading of the opposite, or when the lag is over.
        loop = asyncio.get_running_loop()
        settled_s = loop.time() + self._shutter_lag_s
        changed = False

        async def stands() -> bool | None:
            nonlocal changed
            asked_s = loop.time()
            is_open = await self.read_shutter()
            if permit is not None:
                _still(permit)
            changed = changed or is_open is not wanted
            return True if is_open is wanted and (changed or asked_s >= settled_s) else None

        still = "closed" if wanted else "open"
        await self._until(stands, self._shutter_timeout_s, f"the shutter still says that it is {still}")

    async def read_percent_warm(self) -> int:
        """How warm it is, 0 to 100.  Wire: ``READ:PCTW?\\n`` → ``050%``"""
        return int(await self._quantity(b"READ:PCTW?\n", "%"))

    async def warm_up(self, progress: Progress | None = None) -> None:
        """Warm up, if it is cold, and wait until it is warm. It does not emit then: `switch_on` does that.

        Raises:
            RefusedError: The laser said no.
            ReplyTimeoutError: Not warm within ten minutes; it goes on.

        Wire:
            ``READ:PCTW?\\n`` → ``000%``, ``ON\\n``, ``SYST:ERR?\\n``, then ``READ:PCTW?\\n`` until ``100%``
        """
        if await self.read_percent_warm() == 0:
            await self._command("ON")

        async def warm() -> bool | None:
            percent = await self.read_percent_warm()
            _tell(progress, percent / 100, f"{percent} % warm")
            return True if percent >= 100 else None

        await self._until(warm, _WARM_UP_S, "it is not warm yet")

    async def switch_on(self, progress: Progress | None = None) -> None:
        """Begin to pump a warm laser, and wait until it is mode-locked. The shutter stays as it is.

        Raises:
            LifecycleError: It is not warm. Nothing was sent.
            RefusedError: The laser said no.
            ReplyTimeoutError: Not mode-locked within two minutes; it goes on.

        Wire:
            ``READ:PCTW?\\n``, ``ON\\n``, ``SYST:ERR?\\n``, then ``*STB?\\n`` until bit 1 is set
        """
        percent = await self.read_percent_warm()
        if percent < 100:
            raise LifecycleError(f"it is {percent} % warm; warm_up comes first", left="nothing was sent")
        await self._command("ON")

        async def locked() -> bool | None:
            status = await self.read_status()
            _tell(progress, (status.emitting + status.modelocked) / 2, "ramping up")
            return True if status.modelocked else None

        await self._until(locked, _RAMP_S, "it is not mode-locked yet")

    async def switch_off(self) -> None:
        """Stop pumping; it stays warm, and the shutter as it is.  Wire: ``OFF\\n``, ``SYST:ERR?\\n``"""
        await self._command("OFF")

    async def set_watchdog(self, limit_s: float) -> None:
        """Let the laser switch its pump off when it hears nothing for `limit_s`; 0 is never.

        Wire:
            ``TIM:WATC 10\\n``, ``SYST:ERR?\\n``
        """
        await self._command(f"TIM:WATC {limit_s:g}")

    async def _command(self, command: str, permit: Permit | None = None) -> None:
        async with self._port.lease(self._holder) as lease:
            await self._empty_queue(lease)
            if permit is not None:
                permit()
            await lease.write(f"{command}\n".encode())
            errors = await self._empty_queue(lease)
        if errors:
            first = errors[0]
            raise RefusedError(f"the laser did not take {command}: {first.text}", code=first.code, text=first.text)

    async def _empty_queue(self, lease: Lease) -> list[LaserError]:
        errors: list[LaserError] = []
        while len(errors) < _QUEUE_LENGTH:
            error = parse_error(await lease.exchange(b"SYST:ERR?\n", timeout_s=self._timeout_s))
            if error.empty:
                break
            errors.append(error)
        return errors

    async def _quantity(self, query: bytes, unit: str) -> float:
        return await self._ask(query, lambda reply: parse_quantity(reply, unit))

    async def _ask(self, query: bytes, parse: Callable[[bytes], T]) -> T:
        # A read changes nothing, so it may be repeated once; a second failure is the caller's.
        try:
            return parse(await self._exchange(query))
        except (ReplyFormatError, PortTimeoutError):
            return parse(await self._exchange(query))

    async def _exchange(self, query: bytes) -> bytes:
        return await self._port.exchange(query, holder=self._holder, timeout_s=self._timeout_s)

    async def _until(self, look: Callable[[], Awaitable[Any]], limit_s: float, otherwise: str) -> Any:
        loop = asyncio.get_running_loop()
        overdue_s = loop.time() + limit_s
        while (found := await look()) is None:
            if loop.time() > overdue_s:
                raise ReplyTimeoutError(f"{otherwise} after {limit_s:g} s", fate="failed")
            await pause(self._poll_s)
        return found


def _still(permit: Permit) -> None:
    try:
        permit()
    except UnsafeStateError as error:
        raise StoppedError(f"ended while it opened: {error.what}", fate="failed", left="the shutter closes") from None


def _tell(progress: Progress | None, fraction: float, text: str) -> None:
    if progress is not None:
        progress(min(1.0, max(0.0, fraction)), text)
