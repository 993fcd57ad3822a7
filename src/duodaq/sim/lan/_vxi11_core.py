"""The procedures of VXI-11's core channel: what each does with a link, now or when it can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from duodaq.sim.lan import _rpc as rpc
from duodaq.sim.lan._bus import Bus
from duodaq.sim.lan._device_lock import DeviceLock
from duodaq.sim.lan._vxi11_link import LONGEST, Fault, Flag, Line, Link, Pending

Result = bytes | None
"""What a call is answered with; None: it waits."""


class Instrument(Protocol):
    """The far side of the links."""

    bus: Bus
    on_data: Callable[[int, bytes], None]

    def make_link(self, line: Line) -> Link | None:
        """A new link on `line`; None if there are too many."""
        ...

    def destroy_link(self, link: Link) -> None: ...


class CoreChannel:
    """Carries out calls. `proceed` is called when one that had waited is answered: the next of its line may begin."""

    def __init__(self, instrument: Instrument, proceed: Callable[[Line], None]) -> None:
        self.links: dict[int, Link] = {}
        self.lock = DeviceLock()
        self.abort_port = 0
        self._instrument = instrument
        self._proceed = proceed
        self._procedures: dict[int, Callable[[Line, rpc.XdrReader], Result]] = {
            10: self._create_link,
            11: self._write,
            12: self._read,
            13: self._read_status,
            14: self._trigger,
            15: self._clear,
            16: self._nothing,
            17: self._nothing,
            18: self._lock_device,
            19: self._unlock,
            20: self._unsupported,
            22: self._unsupported,
            23: self._destroy_link,
            25: self._unsupported,
            26: self._unsupported,
        }

    def carry_out(self, line: Line, call: rpc.Call) -> bytes:
        """Begin a call of this program: the record that answers it, or nothing if it waits."""
        if call.procedure == 0:
            return rpc.success(call.number, b"")
        procedure = self._procedures.get(call.procedure)
        if procedure is None:
            return rpc.no_such_procedure(call.number)
        try:
            result = procedure(line, call.arguments)
        except rpc.GarbageError:
            return rpc.garbage(call.number)
        return rpc.success(call.number, result) if result is not None else b""

    def look(self, line: Line) -> None:
        """Something has changed for the call that waits on `line`."""
        pending = line.pending
        if pending is not None and (result := pending.look()) is not None:
            line.answer(result)
            self._proceed(line)

    def abort(self, link: Link) -> None:
        """End the call that waits on `link`, if there is one."""
        pending = link.line.pending
        if pending is not None and pending.link is link:
            self._give_up(pending, Fault.ABORTED)

    def _wait(self, pending: Pending, timeout_ms: int) -> Result:
        """The result if there is one now; else the call waits for it, for so long."""
        result = pending.look()
        if result is not None:
            return result
        if timeout_ms <= 0:
            return pending.failed(Fault.TIMEOUT)
        loop = asyncio.get_running_loop()
        pending.timer = loop.call_later(timeout_ms / 1000, self._give_up, pending, Fault.TIMEOUT)
        pending.link.line.pending = pending
        return None

    def _give_up(self, pending: Pending, why: Fault) -> None:
        line = pending.link.line
        if line.pending is pending:
            line.answer(pending.failed(why))
            self._proceed(line)

    def _admitted(
        self,
        number: int,
        flags: int,
        lock_timeout_ms: int,
        work: Callable[[Link], Result],
        failed: Callable[[Fault], bytes],
    ) -> Result:
        """Do `work` for a link that there is, when no other link's lock keeps it out."""
        link = self.links.get(number)
        if link is None:
            return failed(Fault.INVALID_LINK)
        if self.lock.admits(number):
            return work(link)
        if not flags & Flag.WAIT_LOCK:
            return failed(Fault.LOCKED)
        line = link.line
        line.pending = waiting = Pending(link, lambda: None, failed)

        def told(admitted: bool) -> None:
            if line.pending is not waiting:
                return
            if not admitted:
                self._give_up(waiting, Fault.LOCKED)
                return
            line.pending = None
            result = work(link)
            if result is not None:
                line.answer(result)
                self._proceed(line)

        self.lock.await_access(number, lock_timeout_ms / 1000, told)
        return None

    # --- procedures

    def _create_link(self, line: Line, args: rpc.XdrReader) -> Result:
        args.unsigned()
        locks, lock_timeout_ms, device = args.unsigned(), args.unsigned(), args.opaque()
        if device.lower() not in (b"inst0", b""):
            return rpc.words(Fault.NOT_ACCESSIBLE, 0, 0, 0)
        link = self._instrument.make_link(line)
        if link is None:
            return rpc.words(Fault.OUT_OF_RESOURCES, 0, 0, 0)
        made = rpc.words(Fault.NONE, link.number, self.abort_port, LONGEST)
        if not locks:
            return made
        return self._lock_for(link, lock_timeout_ms, lambda fault: rpc.words(fault, 0, 0, 0) if fault else made)

    def _write(self, line: Line, args: rpc.XdrReader) -> Result:
        number, _io_timeout, lock_timeout_ms, flags = (args.unsigned() for _ in range(4))
        data = args.opaque()

        def write(link: Link) -> bytes:
            if len(data) > LONGEST:
                return rpc.words(Fault.PARAMETER, 0)
            if not link.message:
                link.interrupted = len(link.reply) + self._instrument.bus.owed(number)
                link.forget_reply()
                self._instrument.bus.discard(number)
            link.message += data
            if flags & Flag.END:
                whole = bytes(link.message)
                link.message.clear()
                self._instrument.on_data(number, whole + b"\n")
            return rpc.words(Fault.NONE, len(data))

        return self._admitted(number, flags, lock_timeout_ms, write, lambda fault: rpc.words(fault, 0))

    def _read(self, line: Line, args: rpc.XdrReader) -> Result:
        number, size, timeout_ms, lock_timeout_ms, flags, character = (args.unsigned() for _ in range(6))
        termchar = character & 0xFF if flags & Flag.TERMCHAR else None

        def failed(fault: Fault) -> bytes:
            return rpc.words(fault, 0) + rpc.opaque(b"")

        def read(link: Link) -> Result:
            def look() -> Result:
                found = link.take(size, termchar)
                return None if found is None else rpc.words(Fault.NONE, found[1]) + rpc.opaque(found[0])

            return self._wait(Pending(link, look, failed), timeout_ms)

        return self._admitted(number, flags, lock_timeout_ms, read, failed)

    def _read_status(self, line: Line, args: rpc.XdrReader) -> Result:
        def poll(link: Link) -> bytes:
            return rpc.words(Fault.NONE, self._instrument.bus.poll(link.number))

        return self._generic(args, poll, lambda fault: rpc.words(fault, 0))

    def _trigger(self, line: Line, args: rpc.XdrReader) -> Result:
        return self._generic(args, lambda link: self._instrument.bus.trigger(link.number))

    def _clear(self, line: Line, args: rpc.XdrReader) -> Result:
        def clear(link: Link) -> None:
            link.message.clear()
            link.forget_reply()
            link.interrupted = 0
            self._instrument.bus.device_clear(link.number)

        return self._generic(args, clear)

    def _nothing(self, line: Line, args: rpc.XdrReader) -> Result:
        """Remote and local: this instrument has no front panel."""
        return self._generic(args, lambda _: None)

    def _generic(
        self,
        args: rpc.XdrReader,
        work: Callable[[Link], Result],
        failed: Callable[[Fault], bytes] = lambda fault: rpc.words(fault),
    ) -> Result:
        number, flags, lock_timeout_ms, _io_timeout = (args.unsigned() for _ in range(4))
        return self._admitted(number, flags, lock_timeout_ms, lambda link: work(link) or rpc.words(Fault.NONE), failed)

    def _lock_device(self, line: Line, args: rpc.XdrReader) -> Result:
        number, flags, timeout_ms = (args.unsigned() for _ in range(3))
        link = self.links.get(number)
        if link is None:
            return rpc.words(Fault.INVALID_LINK)
        if self.lock.exclusive == number:
            return rpc.words(Fault.LOCKED)
        return self._lock_for(link, timeout_ms if flags & Flag.WAIT_LOCK else 0, lambda fault: rpc.words(fault))

    def _lock_for(self, link: Link, timeout_ms: int, result: Callable[[Fault], bytes]) -> Result:
        at_once: list[bytes] = []
        line, waiting, begun = link.line, Pending(link, lambda: None, result), False

        def told(granted: bool) -> None:
            outcome = result(Fault.NONE if granted else Fault.LOCKED)
            if not begun:
                at_once.append(outcome)
            elif line.pending is waiting:
                line.answer(outcome)
                self._proceed(line)
            elif granted:  # it was aborted meanwhile
                self.lock.release(link.number)

        self.lock.request(link.number, "", timeout_ms / 1000, told)
        if at_once:
            return at_once[0]
        line.pending, begun = waiting, True
        return None

    def _unlock(self, line: Line, args: rpc.XdrReader) -> Result:
        number = args.unsigned()
        if number not in self.links:
            return rpc.words(Fault.INVALID_LINK)
        return rpc.words(Fault.NONE if self.lock.release(number) else Fault.NO_LOCK)

    def _destroy_link(self, line: Line, args: rpc.XdrReader) -> Result:
        link = self.links.get(args.unsigned())
        if link is None:
            return rpc.words(Fault.INVALID_LINK)
        self._instrument.destroy_link(link)
        return rpc.words(Fault.NONE)

    def _unsupported(self, line: Line, args: rpc.XdrReader) -> Result:
        return rpc.words(Fault.NOT_SUPPORTED)
