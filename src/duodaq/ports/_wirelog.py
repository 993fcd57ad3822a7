from __future__ import annotations

from collections import deque
from collections.abc import Callable

from duodaq.model import WireRecord
from duodaq.telemetry import get_logger

_log = get_logger("ports.wirelog")
_SEGMENT = 512
LARGE = 4096
"""Data of more bytes closes its segment, so that the open one never holds much more than this times its records."""
RECORD_BYTES = 350
"""What a record takes beside its data: its fields, of which holder and trace id are texts of its own. Measured."""


class WireLog:
    """The last records of one port: about `limit`, and about `max_bytes` of memory; what was pushed out is counted.

    A short exchange takes fifty times the memory of its bytes, so it is the memory that is bounded.
    They are kept in segments, of which only the newest grows: so a record costs one append, old ones are let go by the
    segment, and readers in other threads take whole segments without a lock. `count` is how many records there have
    been: the sequence number of the newest.

    Who records very often does by hand what `add` does, as PortBooks: `count` goes up, `append` takes the record, and
    `attend` is called if the number has come to `attention`, or if the data is `LARGE`.
    """

    def __init__(self, limit: int = 65536, max_bytes: int = 8 * 1024 * 1024) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.count = 0
        self.pushed_out = 0
        self._open: list[WireRecord] = []
        self.append = self._open.append
        self._closed: deque[tuple[list[WireRecord], int]] = deque()
        self._closed_bytes = 0
        self._segment = max(1, min(_SEGMENT, limit // 8))
        self.attention = self._segment
        self._listeners: tuple[Callable[[WireRecord], None], ...] = ()

    def add(self, record: WireRecord) -> None:
        """Keep `record`, which bears the number `count` + 1."""
        self.count += 1
        self.append(record)
        if self.count >= self.attention or len(record.data) > LARGE:
            self.attend(record)

    def attend(self, record: WireRecord) -> None:
        """After a record has been appended: close the segment if that is full, and tell the listeners."""
        if len(self._open) >= self._segment or len(record.data) > LARGE:
            self._roll()
        for listener in self._listeners:
            self._tell(listener, record)

    def _roll(self) -> None:
        size = sum(len(record.data) + RECORD_BYTES for record in self._open)
        self._closed.append((self._open, size))
        self._closed_bytes += size
        self._open = []
        self.append = self._open.append
        self._set_attention()
        while self._too_much():
            records, size = self._closed.popleft()
            self._closed_bytes -= size
            self.pushed_out += len(records)

    def _set_attention(self) -> None:
        self.attention = 0 if self._listeners else self.count - len(self._open) + self._segment

    def _too_much(self) -> bool:
        return self.count - self.pushed_out > self.limit or (
            self._closed_bytes > self.max_bytes and len(self._closed) > 1
        )

    def _tell(self, listener: Callable[[WireRecord], None], record: WireRecord) -> None:
        try:
            listener(record)
        except Exception:  # noqa: BLE001 - a listener's fault must not reach the wire
            self._leave(listener)
            _log.error("a wire log listener failed and hears no more", port=record.port, exc_info=True)

    def records(self) -> tuple[WireRecord, ...]:
        """What is kept, oldest first. From any thread."""
        return tuple(self.after(0))

    def after(self, sequence: int, limit: int | None = None) -> list[WireRecord]:
        """What is kept behind number `sequence`, oldest first, at most `limit` of it. From any thread.

        If the first has another number than `sequence` + 1, those between were pushed out.
        """
        newest = self._open  # first: what becomes closed meanwhile is found among the closed
        segments = [records for records, _ in tuple(self._closed)]
        if not any(segment is newest for segment in segments):
            segments.append(newest)
        found: list[WireRecord] = []
        for segment in segments:
            new = segment[:]
            if new and new[-1].sequence > sequence:
                found += new[max(0, sequence - new[0].sequence + 1) :]
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def subscribe(self, listener: Callable[[WireRecord], None]) -> Callable[[], None]:
        """Call `listener` with each record, on the broker's loop, until the returned function is called."""
        self._listeners = (*self._listeners, listener)
        self._set_attention()
        return lambda: self._leave(listener)

    def _leave(self, listener: Callable[[WireRecord], None]) -> None:
        self._listeners = tuple(one for one in self._listeners if one is not listener)
        self._set_attention()
