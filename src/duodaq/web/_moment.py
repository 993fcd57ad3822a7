"""The lab at this moment, as texts that go to every browser: made once, however many there are."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from duodaq.app import Lab, LabService, ScanStatus
from duodaq.clock import monotonic_s, pause, utc_ns
from duodaq.telemetry import get_logger
from duodaq.web._actions import Actions
from duodaq.web._feed import Feed
from duodaq.web._plain import to_json
from duodaq.web._viewer import Viewer
from duodaq.web._visitors import Visitor

VERSION = version("duodaq")
NOW_EVERY_S = 0.2
LAB_EVERY_S = 1.0
_WATCHED = ("name", "unit", "low", "high", "rate", "stale_s", "delay_s")
_SCANS = 5
_log = get_logger("web")


class Moment:
    """Tells viewers five times a second what moves, and once a second all there is."""

    def __init__(self, lab: Lab, actions: Actions, feed: Feed) -> None:
        self._lab = lab
        self._actions = actions
        self._feed = feed
        self._service = LabService(lab)
        self._viewers: dict[Viewer, Visitor] = {}
        self._known: tuple[object, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._said: dict[str, bytes] = {}

    async def welcome(self, viewer: Viewer, visitor: Visitor) -> None:
        """Tell a new viewer everything, and from now on what changes."""
        viewer.answer(to_json({"type": "hello", **await self.facts(visitor)}))
        self._viewers[viewer] = visitor
        self._said.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="page-moment")

    def leave(self, viewer: Viewer) -> None:
        """`viewer` is gone."""
        self._viewers.pop(viewer, None)
        if not self._viewers and self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Tell nobody anything more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def facts(self, visitor: Visitor) -> dict[str, Any]:
        """What hardly changes while the lab runs: its name, its instruments and what can be done with each."""
        described: dict[str, Any] = await self._service.handle("describe", {})
        instruments = [{**one, "panel": self._actions.panel(one["id"])} for one in described["instruments"]]
        return {
            "lab": described["lab"],
            "version": VERSION,
            "role": visitor.role.name.lower(),
            "client": visitor.name,
            "tokens": not self._actions.access.is_open,
            "instruments": instruments,
            "channels": await self._service.handle("channels", {}),
            "alarms": [{name: getattr(one, name) for name in _WATCHED} for one in self._lab.alarms.definitions],
        }

    async def _tell(self) -> None:
        lab_due_s = 0.0
        while True:
            began_s = monotonic_s()
            if began_s >= lab_due_s:
                lab_due_s = began_s + LAB_EVERY_S
                await self._greet_again()
                self._send("lab", await self._whole())
            self._send("now", await self._now())
            self._send_log()
            await pause(max(0.02, NOW_EVERY_S - (monotonic_s() - began_s)))

    async def _greet_again(self) -> None:
        """Tell everybody anew what there is, if an instrument came, went, moved or changed, or the alarms did."""
        manager = self._lab.manager
        now = (self._lab.alarms.definitions, *(manager.definition(one.id) for one in manager.instruments()))
        known, self._known = self._known, now
        if not known or (len(known) == len(now) and all(one is other for one, other in zip(known, now, strict=True))):
            return  # what changes a definition makes another of it; values from a program may not compare
        there = {f"{one.instrument}.{one.channel}" for one in manager.channels()}
        for one in now[1:]:
            if not any(one is before for before in known[1:]):
                self._feed.forget(one.id, there)
        for viewer, visitor in tuple(self._viewers.items()):
            viewer.answer(to_json({"type": "hello", **await self.facts(visitor)}))

    async def _whole(self) -> dict[str, Any]:
        status = await self._service.handle("status", {})
        return {**status, "channels": await self._service.handle("channels", {})}

    async def _parameters(self) -> list[dict[str, Any]]:
        """What is known of each instrument, but for what the runtime that it has left has written."""
        homes = {one.id: one.runtime for one in self._lab.manager.instruments()}
        known: list[dict[str, Any]] = await self._service.handle("parameters", {})
        return [one for one in known if homes.get(one["instrument"], one["owner"]) == one["owner"]]

    async def _now(self) -> dict[str, Any]:
        manager = self._lab.manager
        recording = self._lab.recording_directory
        return {
            "state": manager.state,
            "latched": manager.broker.latched,
            "stopped": self._actions.stopped,
            "recording": None if recording is None else recording.name,
            "instruments": {one.id: {"state": one.state, "message": one.message} for one in manager.instruments()},
            "parameters": await self._parameters(),
            "values": self._feed.values,
            "alarms": self._lab.alarms.status(),
            "control": self._lab.control.holders(),
            "scans": shown(self._lab.scans.all()),
            "operations": self._actions.operations.all()[-20:],
            "viewers": len(self._viewers),
        }

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        """To everybody, unless it is what was said before; the time goes with it."""
        body = to_json(content)
        if self._said.get(kind) == body:
            return
        self._said[kind] = body
        data = b'{"type":"%b","t_ms":%d,"%b":%b}' % (kind.encode(), utc_ns() // 10**6, kind.encode(), body)
        for viewer in self._viewers:
            viewer.offer_state(kind, data)

    def _send_log(self) -> None:
        for viewer in self._viewers:
            lines = self._actions.log.after(viewer.seen_log)
            if lines and viewer.answer(to_json({"type": "log", "lines": lines})):
                viewer.seen_log = lines[-1]["number"]
            if viewer.rows_dropped or viewer.images_dropped:
                lost = {"type": "lost", "rows": viewer.rows_dropped, "images": viewer.images_dropped}
                viewer.offer_state("lost", to_json(lost))


def shown(scans: list[ScanStatus]) -> list[ScanStatus]:
    """The scans of which every page is told at once: those under way, however old, and the last that ended."""
    return [one for one in scans if one.ended_ns is None or one in scans[-_SCANS:]]
