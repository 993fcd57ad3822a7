from __future__ import annotations

from pathlib import Path
from typing import Any

from duodaq.model import ComponentReport, Outcome
from duodaq.ports import Broker
from duodaq.storage import WireRecorder, WireSummary


class WireRecording:
    """All that passes the ports of a broker from now on, into one file; a component as the manager closes it.

    With `remembered`, the file begins with what the ports still keep in memory.
    """

    def __init__(self, broker: Broker, path: Path, lab: str, *, remembered: bool = False) -> None:
        self.path = path
        self.summary: WireSummary | None = None
        sources = {port: broker.log_source(port) for port in broker.names()}
        self._recorder = WireRecorder(path, sources, port_facts(broker), lab, remembered=remembered)

    async def start(self) -> None:
        """Begin.

        Raises:
            StorageError: The file cannot be made, or is there already. Nothing is recorded.
        """
        await self._recorder.start()

    async def close(self, timeout_s: float) -> ComponentReport:
        """End it; `summary` says what it came to. May be called again."""
        if self.summary is None:
            self.summary = await self._recorder.stop(timeout_s)
        name = f"wire log {self.path}"
        if self.summary.complete:
            return ComponentReport(name, Outcome.CLEAN)
        return ComponentReport(name, Outcome.FORCED, f"incomplete: {self.summary.error or self.summary.lost}")


def port_facts(broker: Broker) -> dict[str, dict[str, Any]]:
    """What each port is, for whoever reads its log."""
    addresses = {status.name: status.address for status in broker.status()}
    return {
        name: {
            "codec": definition.codec,
            "address": addresses[name],
            "timeout_s": definition.timeout_s,
            "idle_ms": definition.idle_ms,
        }
        for name, definition in broker.definitions().items()
    }
