"""Scans of clients, kept with the recordings of the lab: their documents go into the event log of a run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from duodaq.app._lab import Lab
from duodaq.clock import utc_ns
from duodaq.errors import LifecycleError
from duodaq.storage.reading import SCAN_CONTINUED, SCAN_DOCUMENT
from duodaq.telemetry import get_logger

_LABELS = ("sample", "operator", "note", "tags")
_log = get_logger("app.scans")


class ScanRecords:
    """The scans under way of a lab's clients, by the uids of their runs."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._scans: dict[str, _Scan] = {}

    async def keep(self, run: str, labels: Mapping[str, Any], number: int | None = None) -> dict[str, Any]:
        """Keep the documents of a scan until its stop document has come: this request is as long as the scan.

        A recording is begun if none is under way, and ended with the last scan in it. If somebody ends it before, the
        scan goes on in another one. When the client's program ends first, a stop document says so.

        Args:
            run: The uid of Bluesky's run.
            labels: Of a recording that is begun for it: sample, operator, note, tags.
            number: Of the lab's scan whose documents these are, if it is one.

        Returns:
            ``directory``, where it is; ``documents``, how many there are.

        Raises:
            LifecycleError: This run is kept already.
            StorageError: No recording can be begun. Nothing is kept.
        """
        if run in self._scans:
            raise LifecycleError(f"the documents of run {run} are kept already")
        self._scans[run] = scan = _Scan(number, _chosen(labels))
        recordings = self._lab.scans.recordings
        try:
            scan.directory = await recordings.join(run, scan.labels)
            try:
                self._lab.scans.kept(number, run, scan.directory)
                scan.ready.set()
                if why := await self._given_up(scan):
                    self._note_end(run, scan, why)
            except asyncio.CancelledError:
                self._note_end(run, scan, "the program that scanned has ended")
                _log.warning("the program of a scan has ended before its scan", run=run, documents=scan.documents)
                raise
            finally:
                await recordings.leave(run)
            return {"directory": str(scan.directory), "documents": scan.documents}
        finally:
            scan.ready.set()
            del self._scans[run]

    async def document(self, run: str, kind: str, document: Mapping[str, Any]) -> None:
        """Keep one document of a scan.

        Raises:
            LifecycleError: `keep` is not under way for that run.
            StorageError: The recording was ended, and no other can be begun: it is not kept.
        """
        scan = self._scans.get(run)
        if scan is not None:
            await scan.ready.wait()
        if run not in self._scans or scan is None:
            raise LifecycleError(f"the documents of run {run} are not kept")
        async with scan.order:
            if self._lab.recording_open != scan.directory and not self._lab.scans.closing:
                await self._go_on(run, scan)
            scan.documents += 1
            self._note(run, kind, document)
        if kind in ("start", "descriptor"):
            scan.head.append((kind, document))
        if kind == "stop":
            scan.ended.set()

    async def place(self, run: str) -> Path | None:
        """Where the documents of a run go, once that is known; None if they are not kept."""
        scan = self._scans.get(run)
        if scan is None:
            return None
        await scan.ready.wait()
        return scan.directory

    async def _given_up(self, scan: _Scan) -> str:
        """Wait for its stop document; empty then, or why none is waited for any more."""
        ended = asyncio.ensure_future(scan.ended.wait())
        given_up = asyncio.ensure_future(self._lab.scans.given_up(scan.number))
        try:
            await asyncio.wait((ended, given_up), return_when=asyncio.FIRST_COMPLETED)
            return given_up.result() if given_up.done() and not ended.done() else ""
        finally:
            ended.cancel()
            given_up.cancel()
            await asyncio.gather(ended, given_up, return_exceptions=True)

    def _note_end(self, run: str, scan: _Scan, why: str) -> None:
        if self._lab.recording_open == scan.directory:
            self._note(run, "stop", _aborted(run, why))

    async def _go_on(self, run: str, scan: _Scan) -> None:
        """Its recording was ended: what is still to come goes into another, which names where the rest is."""
        assert scan.directory is not None
        scan.earlier.append(str(scan.directory))
        scan.directory = await self._lab.scans.recordings.join(run, scan.labels)
        facts = {"run": run, "earlier": [*scan.earlier]}
        self._lab.note_in_recording(SCAN_CONTINUED, facts)
        for kind, document in scan.head:
            self._note(run, kind, document)
        self._lab.scans.kept(scan.number, run, scan.directory)
        _log.warning("the recording of a scan was ended: it goes on in another", directory=str(scan.directory), **facts)

    def _note(self, run: str, kind: str, document: Mapping[str, Any]) -> None:
        self._lab.note_in_recording(SCAN_DOCUMENT, {"kind": kind, "run": run, "doc": dict(document)})


class _Scan:
    def __init__(self, number: int | None, labels: Mapping[str, Any]) -> None:
        self.number = number
        self.labels = labels
        self.order = asyncio.Lock()
        self.head: list[tuple[str, Mapping[str, Any]]] = []
        self.earlier: list[str] = []
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.directory: Path | None = None
        self.documents = 0


def _chosen(labels: Mapping[str, Any]) -> dict[str, Any]:
    """What of a scan's metadata is a label of its recording."""
    told: dict[str, Any] = {name: str(labels[name]) for name in _LABELS[:3] if labels.get(name) is not None}
    tags: Any = labels.get("tags")
    if tags is not None:
        told["tags"] = [str(tag) for tag in cast("list[Any]", tags)] if isinstance(tags, list) else [str(tags)]
    return told


def _aborted(run: str, reason: str) -> dict[str, Any]:
    return {
        "uid": str(uuid.uuid4()),
        "run_start": run,
        "time": utc_ns() / 1e9,
        "exit_status": "abort",
        "reason": reason,
        "num_events": {},
    }
