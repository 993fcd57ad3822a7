from __future__ import annotations

from collections import deque
from collections.abc import Callable

from duodaq.model import WireRecord
from duodaq.telemetry import get_logger

_log = get_logger("ports.wirelog")


RECORD_BYTES = 350
"""What a record takes beside its data: its fields, of which holder and trace id are texts of its own. Measured."""


class WireLog:
    """The last `limit` records of one port, as far as `max_bytes` of memory hold them; what was pushed out is counted.

    A short exchange takes fifty times the memory of its bytes, so it is the memory that is bounded. `count` is how many
    there have been: the sequence number of the newest.
    """

    def __init__(self, limit: int = 65536, max_bytes: int = 8 * 1024 * 1024) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.count = 0
        self.pushed_out = 0
        self._records: deque[WireRecord] = deque()
        self._bytes = 0
        self._listeners: tuple[Callable[[WireRecord], None], ...] = ()

    def add(self, record: WireRecord) -> None:
        records = self._records
        records.append(record)
        self._bytes += len(record.data) + RECORD_BYTES
        while len(records) > self.limit or (self._bytes > self.max_bytes and len(records) > 1):
            self._bytes -= len(records.popleft().data) + RECORD_BYTES
            self.pushed_out += 1
        for listener in self._listeners:
            self._tell(listener, record)

    def _tell(self, listener: Callable[[WireRecord], None], record: WireRecord) -> None:
        try:
            listener(record)
        except Exception:  # noqa: BLE001 - a listener's fault must not reach the wire
            self._leave(listener)
            _log.error("a wire log listener failed and hears no more", port=record.port, exc_info=True)

    def records(self) -> tuple[WireRecord, ...]:
        """What is kept, oldest first. Safe from any thread."""
        return tuple(self._records.copy())

    def after(self, sequence: int, limit: int) -> tuple[WireRecord, ...]:
        """At most `limit` of the kept records behind number `sequence`, oldest first. On the broker's loop only."""
        records = self._records
        new = min(self.count - sequence, len(records))
        start = len(records) - new
        return tuple(records[i] for i in range(start, min(start + limit, len(records)))) if new > 0 else ()

    def subscribe(self, listener: Callable[[WireRecord], None]) -> Callable[[], None]:
        """Call `listener` with each record, on the broker's loop, until the returned function is called."""
        self._listeners = (*self._listeners, listener)
        return lambda: self._leave(listener)

    def _leave(self, listener: Callable[[WireRecord], None]) -> None:
        self._listeners = tuple(one for one in self._listeners if one is not listener)
