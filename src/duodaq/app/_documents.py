"""Bluesky's documents, sent from the program that scans to the lab, which keeps them with its recording."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from duodaq.app._channel import Channel
from duodaq.errors import DuodaqError
from duodaq.telemetry import get_logger

LARGE = 1024
"""Arrays of more values than this are not put into the event log: the streams of the recording have them."""

_UNDER_WAY = 32
_ANSWER_S = 30.0
_log = get_logger("app.documents")


class DocumentJournal:
    """Takes the documents of a run engine and has the lab keep them: ``RE.subscribe(lab.journal())``.

    The lab begins a recording for a run if none is under way, and ends it with the run. Documents are sent without
    waiting for each answer; that all are there is known when the stop document has been taken.

    Attributes:
        directories: Where the runs are kept, by their uids.
    """

    def __init__(self, channel: Channel, scan: int | None = None) -> None:
        self._channel = channel
        self._scan = scan
        self._runs: dict[str, _Run] = {}
        self._of_descriptor: dict[str, _Run] = {}
        self.directories: dict[str, Path] = {}

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document.

        Raises:
            DuodaqError: The lab cannot keep it: a recording that cannot be begun, at the start; a lab that is gone.
        """
        if name == "start":
            self._begin(document)
            return
        run = self._run_of(name, document)
        if run is None:
            return  # of a run that began before this journal was subscribed
        if name == "descriptor":
            self._of_descriptor[document["uid"]] = run
            document = run.outside(document)
        elif name == "event":
            document = run.without_arrays(document)
        elif name == "event_page":
            document = run.without_pages(document)
        run.send(name, document)
        if name == "stop":
            self._end(run)

    def _begin(self, start: Mapping[str, Any]) -> None:
        run = _Run(self._channel, start["uid"], start, self._scan)
        self.directories[run.uid] = run.begin()
        self._runs[run.uid] = run
        run.send("start", start)

    def _end(self, run: _Run) -> None:
        self._runs.pop(run.uid, None)
        self._of_descriptor = {uid: one for uid, one in self._of_descriptor.items() if one is not run}
        self.directories[run.uid] = run.finish()

    def _run_of(self, name: str, document: Mapping[str, Any]) -> _Run | None:
        if name in ("event", "event_page", "stream_datum"):
            return self._of_descriptor.get(document["descriptor"])
        if "run_start" in document:
            return self._runs.get(document["run_start"])
        return next(iter(self._runs.values()), None)  # a datum names no run


class _Run:
    """One run on its way to the lab."""

    def __init__(self, channel: Channel, uid: str, start: Mapping[str, Any], scan: int | None) -> None:
        self.uid = uid
        self._scan = scan
        self._channel = channel
        self._start = start
        self._kept: concurrent.futures.Future[Any] | None = None
        self._sent: deque[concurrent.futures.Future[Any]] = deque()
        self._large: dict[str, str] = {}

    def begin(self) -> Path:
        labels = {name: self._start.get(name) for name in ("sample", "operator", "note", "tags")}
        self._kept = self._channel.submit("scan_keep", {"run": self.uid, "labels": plain(labels), "scan": self._scan})
        place: str | None = self._channel.request("scan_place", {"run": self.uid})
        if place is None:
            return Path(self._channel.wait(self._kept)["directory"])  # it was not begun: raises why
        return Path(place)

    def send(self, name: str, document: Mapping[str, Any]) -> None:
        while len(self._sent) >= _UNDER_WAY:
            self._channel.wait(self._sent.popleft())
        params = {"run": self.uid, "kind": name, "doc": plain(dict(document))}
        self._sent.append(self._channel.submit("scan_document", params))

    def finish(self) -> Path:
        """Wait until all is kept; in which recording it ended."""
        while self._sent:
            self._channel.wait(self._sent.popleft())
        assert self._kept is not None
        try:
            return Path(self._kept.result(_ANSWER_S)["directory"])
        except DuodaqError as error:
            raise error.with_traceback(None) from error.__cause__

    def outside(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        """The descriptor with its large fields said to be elsewhere: in the streams of the recording."""
        keys = dict(descriptor["data_keys"])
        for field, key in keys.items():
            if int(np.prod(key.get("shape") or [1])) > LARGE:
                self._large[field] = str(key.get("source", ""))
                keys[field] = {**key, "external": "JOURNAL:"}
        return {**descriptor, "data_keys": keys}

    def without_arrays(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event with a reference instead of each large array: its stream, and its time in ns."""
        large = self._large.keys() & event["data"].keys()
        if not large:
            return dict(event)
        places = {f: f"{self._large[f]}@{round(event['timestamps'][f] * 1e9)}" for f in large}
        filled = {**event.get("filled", {}), **dict.fromkeys(large, False)}
        return {**event, "data": {**event["data"], **places}, "filled": filled}

    def without_pages(self, page: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise, of a page of events."""
        large = self._large.keys() & page["data"].keys()
        if not large:
            return dict(page)
        places = {f: [f"{self._large[f]}@{round(t * 1e9)}" for t in page["timestamps"][f]] for f in large}
        filled = {**page.get("filled", {}), **{f: [False] * len(places[f]) for f in large}}
        return {**page, "data": {**page["data"], **places}, "filled": filled}


def plain(value: Any) -> Any:
    """As the lab can keep it: tables of names and lists of plain values; what is none of these as its text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(cast("Any", value).tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in cast("Any", value)]
    return str(value)
