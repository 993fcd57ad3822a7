from __future__ import annotations

from duodaq.clock import utc_ns
from duodaq.model import Direction, WireRecord
from duodaq.ports._exchange import Exchange
from duodaq.ports._wirelog import LARGE, WireLog
from duodaq.telemetry import get_logger

_log = get_logger("ports")

FENCED = "owns its instrument from now on"
"""What a record says whose holder has just become the owner of its instrument."""


class PortBooks:
    """What one port has done since it was added: its counts, its last error and its wire log."""

    def __init__(self, name: str, log: WireLog) -> None:
        self.name = name
        self.log = log
        self.exchanges = 0
        self.errors = 0
        self.reconnects = 0
        self.resyncs = 0
        self.late = 0
        self.stray_bytes = 0
        self.copies = 0
        self.strangers = 0
        self.last_error_ns = 0
        self._last_error = ""
        self._stranger = b""

    @property
    def last_error(self) -> str:
        """What went wrong last; empty for nothing. `last_error_ns` says when, in UTC nanoseconds."""
        return self._last_error

    @last_error.setter
    def last_error(self, error: str) -> None:
        self._last_error, self.last_error_ns = error, utc_ns()

    def begun(self) -> int:
        """The number of an exchange that begins now."""
        self.exchanges += 1
        return self.exchanges

    def failed(self, error: BaseException, exchange: Exchange) -> None:
        self.errors += 1
        self.last_error = str(error)
        self._note(self.last_error, exchange.ticket.holder, exchange.number, exchange.trace_id)

    def opened(self) -> None:
        self._note("open")

    def lost(self, cause: Exception | None) -> None:
        self.last_error = f"the line was lost{f': {cause}' if cause else ''}"
        self._note(f"lost{f': {cause}' if cause else ''}")

    def stranger(self, reply: bytes, known: bytes) -> str:
        """Another device answers than before; a sentence of it, once for each that does so in turn."""
        what = f"another device answers: {reply!r}, not {known!r}"
        if reply != self._stranger:
            self._stranger = reply
            self.strangers += 1
            _log.error("another device answers", port=self.name, reply=repr(reply), known=repr(known))
        return what

    def acquainted(self) -> None:
        """The device answers that was there before."""
        self._stranger = b""

    def fenced(self, holder: str) -> None:
        """From here on `holder` alone writes for its instrument; in the log it says so in its own name."""
        self._note(FENCED, holder)

    def mending(self) -> None:
        self._note("resynchronising")

    def mended(self, late: int) -> None:
        """A resynchronising has ended, in which `late` replies came that belonged to nobody."""
        self.resyncs += 1
        self.late += late
        self._note("resynchronised")

    def written(self, data: bytes, exchange: Exchange) -> None:
        log = self.log
        number = log.count = log.count + 1
        record = WireRecord(
            utc_ns(), self.name, ">", data, exchange.ticket.holder, exchange.number, exchange.trace_id, number
        )
        log.append(record)
        if number >= log.attention or len(data) > LARGE:
            log.attend(record)

    def heard(self, data: bytes, exchange: Exchange) -> None:
        log = self.log
        number = log.count = log.count + 1
        record = WireRecord(
            utc_ns(), self.name, "<", data, exchange.ticket.holder, exchange.number, exchange.trace_id, number
        )
        log.append(record)
        if number >= log.attention or len(data) > LARGE:
            log.attend(record)

    def written_by_broker(self, data: bytes) -> None:
        self._record(">", data, "broker", 0, None)

    def heard_between(self, data: bytes, holder: str) -> None:
        """Record bytes that belong to no exchange; `holder` is who gets them, empty for nobody."""
        self._record("<", data, holder, 0, None)

    def _note(self, what: str, holder: str = "broker", exchange: int = 0, trace_id: str | None = None) -> None:
        self._record("!", what.encode(), holder, exchange, trace_id)

    def _record(self, direction: Direction, data: bytes, holder: str, exchange: int, trace_id: str | None) -> None:
        log = self.log
        log.add(WireRecord(utc_ns(), self.name, direction, data, holder, exchange, trace_id, log.count + 1))
