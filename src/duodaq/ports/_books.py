from __future__ import annotations

from typing import Literal

from duodaq import clock
from duodaq.ports._exchange import Exchange
from duodaq.ports._wirelog import WireLog, WireRecord


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
        self.last_error = ""

    def begun(self) -> int:
        """The number of an exchange that begins now."""
        self.exchanges += 1
        return self.exchanges

    def failed(self, error: BaseException) -> None:
        self.errors += 1
        self.last_error = str(error)

    def written(self, data: bytes, exchange: Exchange) -> None:
        self._record(">", data, exchange.ticket.holder, exchange.number, exchange.trace_id)

    def heard(self, data: bytes, exchange: Exchange) -> None:
        self._record("<", data, exchange.ticket.holder, exchange.number, exchange.trace_id)

    def written_by_broker(self, data: bytes) -> None:
        self._record(">", data, "broker", 0, None)

    def heard_between(self, data: bytes, holder: str) -> None:
        """Record bytes that belong to no exchange; `holder` is who gets them, empty for nobody."""
        self._record("<", data, holder, 0, None)

    def _record(
        self, direction: Literal[">", "<"], data: bytes, holder: str, exchange: int, trace_id: str | None
    ) -> None:
        self.log.add(WireRecord(clock.utc_ns(), self.name, direction, data, holder, exchange, trace_id))
