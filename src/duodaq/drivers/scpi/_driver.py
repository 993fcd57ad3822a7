"""Any SCPI instrument, over its shared port: queries, writes, transactions that really wait, and its error queue."""

from __future__ import annotations

import asyncio

from duodaq.clock import pause
from duodaq.drivers.scpi._codec import (
    EventStatus,
    ScpiCodec,
    ScpiError,
    StatusByte,
    block_payload,
    parse_error,
    parse_number,
    text,
)
from duodaq.errors import DuodaqError, PortTimeoutError, RefusedError, ReplyFormatError, ReplyTimeoutError
from duodaq.ports import Lease, Port

__all__ = ["ScpiDriver"]

_WATCHED = (
    EventStatus.OPERATION_COMPLETE
    | EventStatus.QUERY_ERROR
    | EventStatus.DEVICE_ERROR
    | EventStatus.EXECUTION_ERROR
    | EventStatus.COMMAND_ERROR
)
_LONGEST_QUEUE = 100
_EXPLAIN_S = 4.5  # behind the resynchronisation, which waits for a late reply first
_CODEC = ScpiCodec()


class ScpiDriver:
    """Text in, text out; the error queue and the event registers are this driver's alone."""

    def __init__(self, port: Port, holder: str, *, timeout_s: float | None = None, poll_s: float = 0.02) -> None:
        self._port = port
        self._holder = holder
        self._timeout_s = timeout_s
        self._poll_s = poll_s

    async def query(self, command: str, timeout_s: float | None = None) -> str:
        """The reply to a query, without its terminator.

        Raises:
            RefusedError: No reply came, and the error queue says why (-113 undefined header …).
            PortTimeoutError: No reply came, and the queue says nothing. The line has been drained.

        Wire:
            ``VOLT?\\n`` → ``+1.00000000E+00\\n``
        """
        return text(await self.query_bytes(command, timeout_s))

    async def query_bytes(self, command: str, timeout_s: float | None = None) -> bytes:
        """The reply to a query as it came, terminator and block header included; raises as `query`."""
        limit_s = timeout_s if timeout_s is not None else self._timeout_s
        try:
            return await self._port.exchange(
                _line(command), holder=self._holder, reply=_CODEC.expects_reply(_line(command)), timeout_s=limit_s
            )
        except PortTimeoutError as silence:
            await self._explain(command, silence)
            raise

    async def query_number(self, command: str, timeout_s: float | None = None) -> float:
        """The number that a query replies; inf on overload, nan where the instrument says so."""
        return parse_number(await self.query(command, timeout_s))

    async def query_block(self, command: str, timeout_s: float | None = None) -> bytes:
        """The payload of the block that a query replies."""
        return block_payload(await self.query_bytes(command, timeout_s))

    async def write(self, command: str) -> None:
        """Write a command that has no reply. What the instrument thought of it is in its error queue.

        Raises:
            ReplyFormatError: It is a query. Nothing was sent.
        """
        data = _line(command)
        if _CODEC.expects_reply(data) is not None:
            raise ReplyFormatError(f"{command!r} has a reply: query it", left="nothing was sent")
        await self._port.write(data, holder=self._holder)

    async def command(self, command: str) -> None:
        """Write a command and read the error queue after it, under one lease.

        Raises:
            RefusedError: The instrument queued an error, which is no longer in its queue.

        Wire:
            ``VOLT:RANG 10\\n``, ``SYST:ERR?\\n`` → ``+0,"No error"\\n``
        """
        async with self._port.lease(self._holder) as lease:
            await self._read_errors(lease)
            await lease.write(_line(command))
            errors = await self._read_errors(lease)
        if errors:
            raise _refusal(command, errors[0])

    async def transact(self, command: str, timeout_s: float = 10.0) -> str:
        """Write a command, and wait until the instrument has finished all that it began.

        Returns:
            The reply if the command asks for one, else an empty string.

        Raises:
            RefusedError: One of the error bits of the event register rose; code and text from the error queue.
            ReplyTimeoutError: Not finished in time; the outcome is unknown.

        Wire:
            ``*ESE?``, ``*ESE 61``, ``*ESR?``, ``INIT;*OPC``, ``*STB?`` until bit 5, ``*ESR?``; then ``*ESE`` as before.
        """
        ends_s = asyncio.get_running_loop().time() + timeout_s
        async with self._port.lease(self._holder) as lease:
            before = await self._arm(lease)
            try:
                reply = await self._begin(lease, command, timeout_s)
            except BaseException:
                await lease.write(f"*ESE {before}\n".encode())
                raise
        try:
            await self._await_summary(command, ends_s)
            await self._settle(command)
        finally:
            await self._port.write(f"*ESE {before}\n".encode(), holder=self._holder)
        return reply

    async def read_errors(self) -> list[ScpiError]:
        """Empty the error queue; its entries, oldest first.  Wire: ``SYST:ERR?\\n`` until code 0."""
        async with self._port.lease(self._holder) as lease:
            return await self._read_errors(lease)

    async def clear_errors(self) -> None:
        """Empty the error queue and the event registers.  Wire: ``*CLS\\n``"""
        await self.write("*CLS")

    async def reset(self) -> None:
        """Bring the instrument to its *RST state and wait until it is there.  Wire: as `transact`, with ``*RST``."""
        await self.transact("*RST")

    async def identify(self) -> str:
        """Maker, model, serial number, firmware.  Wire: ``*IDN?\\n``"""
        return await self.query("*IDN?")

    async def read_status(self) -> StatusByte:
        """The status byte; nothing is cleared by reading it.  Wire: ``*STB?\\n``"""
        return StatusByte(_integer(await self.query("*STB?")))

    async def _arm(self, lease: Lease) -> int:
        before = _integer(text(await lease.exchange(b"*ESE?\n")))
        await lease.write(f"*ESE {int(_WATCHED)}\n".encode())
        await lease.exchange(b"*ESR?\n")
        return before

    async def _begin(self, lease: Lease, command: str, timeout_s: float) -> str:
        line = _line(f"{command};*OPC")
        if _CODEC.expects_reply(line) is None:
            await lease.write(line)
            return ""
        return text(await lease.exchange(line, timeout_s=timeout_s))

    async def _await_summary(self, command: str, ends_s: float) -> None:
        loop = asyncio.get_running_loop()
        while StatusByte.EVENT_SUMMARY not in await self.read_status():
            if loop.time() >= ends_s:
                raise ReplyTimeoutError(f"{command!r} was not complete in time", fate="unknown")
            await pause(self._poll_s)

    async def _settle(self, command: str) -> None:
        events = EventStatus(_integer(await self.query("*ESR?")))
        if events.failed:
            errors = await self.read_errors()
            raise _refusal(command, errors[0] if errors else ScpiError(0, f"event register {int(events)}"))

    async def _read_errors(self, lease: Lease) -> list[ScpiError]:
        errors: list[ScpiError] = []
        while len(errors) < _LONGEST_QUEUE:
            error = parse_error(text(await lease.exchange(b"SYST:ERR?\n")))
            if error.code == 0:
                break
            errors.append(error)
        return errors

    async def _explain(self, command: str, silence: PortTimeoutError) -> None:
        try:
            async with self._port.lease(self._holder, timeout_s=_EXPLAIN_S) as lease:
                errors = await self._read_errors(lease)
        except DuodaqError:
            return
        if errors:
            raise _refusal(command, errors[-1]) from silence


def _line(command: str) -> bytes:
    return command.rstrip("\r\n").encode("latin-1") + b"\n"


def _integer(reply: str) -> int:
    return int(parse_number(reply))


def _refusal(command: str, error: ScpiError) -> RefusedError:
    return RefusedError(f"{command!r} was refused with {error.code}, {error.text}", code=error.code, text=error.text)
