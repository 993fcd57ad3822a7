"""The flight recorder: what was logged and what passed the ports in the last minute, written when something breaks.

It keeps nothing of the wire itself, for each port remembers its last records; of the log it keeps 5,000 lines, each cut
to a bounded length. So its memory is bounded, and what it costs while all is well is a deque's append for each line of
the log. A thread writes, into a folder that has its name once it is whole; folders beyond the number that is kept
are removed, oldest first.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import ipc

from duodaq.app._wire import port_facts
from duodaq.clock import Deadline, pause, utc_ns
from duodaq.model import ObserverDefinition, WireRecord
from duodaq.ports import Broker
from duodaq.schema import WIRE_FILE, wire, wire_batch
from duodaq.telemetry import as_json, get_logger, listen_to_log, named, words

SETTLE_S = 0.3
"""So long after something broke it is written: what follows at once belongs to it."""
GAP_S = 5.0
"""The least time between two."""
CLOSE_S = 10.0
"""So long the end of a lab, whose instruments are safe by then, waits for what is being written."""
_PART, _LEFT_S = ".part", 600
_LINES = 5000
_LONGEST = 2000
_EVENTS = {
    "actor gave up": "crash",
    "safe state after a crash": "crash",
    "safe state failed": "crash",
    "worker died": "crash",
    "worker died while it started": "crash",
    "worker has failed": "crash",
    "worker is ended": "hang",
}
_FOLDER = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[a-z-]+")
_log = get_logger("flight")


class FlightRecorder:
    """Writes the last minute into a folder of its own on a crash, a hang or a stop-all.

    Args:
        broker: Whose ports.
        lab: The lab's name.
        definition: Where, for how long, and how many are kept.
        status: The lab at that moment, as plain values.
    """

    def __init__(
        self, broker: Broker, lab: str, definition: ObserverDefinition, status: Callable[[], dict[str, Any]]
    ) -> None:
        self.written = 0
        self._broker = broker
        self._lab = lab
        self._folder = definition.flight_dir
        self._last_s = definition.flight_s
        self._keep = definition.flight_keep
        self._status = status
        self._lines: deque[dict[str, Any]] = deque(maxlen=_LINES)
        self._causes: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._not_before_s = 0.0
        self._thread: threading.Thread | None = None
        self._deaf: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to listen, on the lab's loop; nothing where it has no folder."""
        if self._folder is not None:
            self._loop = asyncio.get_running_loop()
            self._deaf = listen_to_log(self._heard)

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Remember something. From any thread."""
        short = {name: _short(value) for name, value in facts.items()}
        self._lines.append({"t_ns": utc_ns(), "kind": kind, **short})

    def trigger(self, cause: str) -> None:
        """Something broke: write what was before, soon. From any thread; never waits."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if not self._causes:
            loop.call_soon_threadsafe(self._schedule)
        if cause not in self._causes:
            self._causes.append(cause)

    async def aclose(self) -> None:
        """Write what is still to be written, and end; within `CLOSE_S`, or what is not written is said. Idempotent."""
        self._deaf()
        if self._timer is not None:
            self._timer.cancel()
        deadline = Deadline(CLOSE_S)
        whole = await self._written(deadline)
        if whole and self._loop is not None and self._causes:
            self._write()
            whole = await self._written(deadline)
        self._loop = None
        if not whole:
            _log.error("what was before is not whole: the lab has ended meanwhile", folder=str(self._folder))

    async def _written(self, deadline: Deadline) -> bool:
        """Wait for the thread; whether it has ended."""
        while (thread := self._thread) is not None and thread.is_alive():
            if deadline.passed:
                return False
            await pause(0.002)
        return True

    def _heard(self, level: str, event: Mapping[str, Any]) -> None:
        self.note("log", {"level": level, **event})
        cause = _EVENTS.get(str(event.get("event")))
        if cause is not None:
            self.trigger(cause)

    def _schedule(self) -> None:
        loop = self._loop
        if loop is not None and self._timer is None:
            at_s = max(loop.time() + SETTLE_S, self._not_before_s)
            self._timer = loop.call_at(at_s, self._write)

    def _write(self) -> None:
        """Take what there is, on the loop, and have it written."""
        self._timer = None
        loop, folder = self._loop, self._folder
        if loop is None or folder is None:
            return
        self._not_before_s = loop.time() + GAP_S
        causes, self._causes = self._causes, []
        if self._thread is not None and self._thread.is_alive():
            _log.error("what was before is not written: the last time is still being written", causes=causes)
            return
        from_ns = utc_ns() - round(self._last_s * 1e9)
        facts = {"lab": self._lab, "causes": causes, "t_ns": utc_ns(), "status": self._status()}
        place = folder / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%f')[:-3]}Z-{causes[0] if causes else 'asked'}"
        lines = [line for line in self._lines if line["t_ns"] >= from_ns]
        ports, sources = port_facts(self._broker), [self._broker.log_source(name) for name in self._broker.names()]
        work = (place, facts, lines, ports, sources, from_ns)
        self._thread = threading.Thread(target=self._write_all, args=work, name="flight recorder", daemon=True)
        self._thread.start()

    # --- in the thread

    def _write_all(
        self,
        place: Path,
        facts: dict[str, Any],
        lines: list[dict[str, Any]],
        ports: dict[str, dict[str, Any]],
        sources: list[Callable[[int], list[WireRecord]]],
        from_ns: int,
    ) -> None:
        part = place.with_name(f".{place.name}{_PART}")
        try:
            self._remove_parts(place.parent)
            part.mkdir(parents=True)
            (part / "lab.json").write_text(json.dumps(facts, default=words, indent=1), "utf-8")
            (part / "events.jsonl").write_text("".join(f"{as_json(line)}\n" for line in lines), "utf-8")
            records = [record for source in sources for record in source(0) if record.t_ns >= from_ns]
            records.sort(key=lambda record: record.t_ns)
            _write_wire(part / WIRE_FILE, records, ports, self._lab)
            part.rename(place)
            self._remove_old(place.parent)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the next one is tried
            shutil.rmtree(part, ignore_errors=True)
            _log.error("what was before could not be written", folder=str(place), error=named(error))
            return
        self.written += 1
        wire_count, line_count = len(records), len(lines)
        causes = ", ".join(facts["causes"])
        _log.warning("what was before is written", folder=str(place), cause=causes, wire=wire_count, lines=line_count)

    def _remove_parts(self, folder: Path) -> None:
        """What a program left that was killed at it; a fresh one may be another lab's, which is at it now."""
        for left in folder.glob(f".*Z-*{_PART}"):
            if utc_ns() - left.stat().st_mtime_ns > _LEFT_S * 1e9:
                shutil.rmtree(left, ignore_errors=True)

    def _remove_old(self, folder: Path) -> None:
        ours = sorted(one for one in folder.iterdir() if one.is_dir() and _FOLDER.fullmatch(one.name))
        for old in ours[: -max(1, self._keep)]:
            shutil.rmtree(old)


def _write_wire(path: Path, records: list[WireRecord], ports: dict[str, dict[str, Any]], lab: str) -> None:
    schema = wire(ports, lab)
    with path.open("xb") as file:
        writer: Any = ipc.new_stream(file, schema)
        writer.write_batch(wire_batch(records, schema))
        writer.close()


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = words(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text)} characters)"
