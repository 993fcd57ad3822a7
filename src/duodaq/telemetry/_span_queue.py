"""Spans on their way to a collector: so many wait at most, and each is counted once: sent, refused or left out."""

from __future__ import annotations

import threading
from typing import Any

from duodaq.telemetry._logs import get_logger
from duodaq.telemetry._traceback import named

MOST = 2048
_log = get_logger("telemetry")


class SpanQueue:
    """A processor of OpenTelemetry's before its own, and an exporter around the one that it is given.

    Attributes:
        sent: How many the collector took.
        failed: How many it did not.
        dropped: How many were left out because so many waited already.
    """

    def __init__(self, exporter: Any) -> None:
        self.sent = self.failed = self.dropped = 0
        self.next: Any = None
        self._exporter = exporter
        self._lock = threading.Lock()
        self._waiting = 0
        self._refused = False

    # --- as a processor

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing yet."""

    def _on_ending(self, span: Any) -> None:
        """Nothing yet."""

    def on_end(self, span: Any) -> None:
        """Pass it on, if there is room. Never waits for the collector."""
        with self._lock:
            if self._waiting >= MOST:
                self.dropped += 1
                return
            self._waiting += 1
        self.next.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have sent what waits."""
        return self.next.force_flush(timeout_millis)

    # --- as an exporter, in the thread of OpenTelemetry's processor

    def export(self, spans: Any) -> Any:
        """Send them; what comes of it."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._count(len(spans), False, named(error))
            raise
        self._count(len(spans), result.name == "SUCCESS", result.name)
        return result

    def shutdown(self) -> None:
        """As the processor: have the next one end; as the exporter, which that one then ends: end it."""
        following, self.next = self.next, None
        (self._exporter if following is None else following).shutdown()

    def _count(self, spans: int, sent: bool, why: str) -> None:
        with self._lock:
            self._waiting -= spans
            self.sent += spans if sent else 0
            self.failed += 0 if sent else spans
            changed, self._refused = self._refused is sent, not sent
        if changed and not sent:
            _log.warning("the collector takes no spans", error=why)
        elif changed:
            _log.warning("the collector takes spans again", failed=self.failed, dropped=self.dropped)
