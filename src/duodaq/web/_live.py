"""The live connection of one browser: what it asks in, what it wants out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any, cast

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from duodaq.telemetry import get_logger
from duodaq.web._actions import Actions
from duodaq.web._feed import Feed
from duodaq.web._moment import Moment
from duodaq.web._pictures import View
from duodaq.web._plain import to_json
from duodaq.web._rates import Rate
from duodaq.web._refusal import Refusal
from duodaq.web._viewer import Viewer
from duodaq.web._visitors import Visitor

LARGEST_MESSAGE = 64 * 1024
MOST_BROWSERS = 32
MOST_IN_HAND = 32
MOST_STREAMS = 64
STOPS = ("stop", "stop_all", "scan_abort")
"""What is never too many."""
_SEND_S = 20.0
"""A browser that takes nothing for so long is gone."""
_CLOSE_S = 1.0
_LEFT_S = 2.0
_log = get_logger("web")


class Live:
    """All live connections of a server."""

    def __init__(self, actions: Actions, feed: Feed, moment: Moment) -> None:
        self._actions = actions
        self._feed = feed
        self._moment = moment
        self._count = 0
        self._left: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """What browsers that are gone had begun ends first, for a while: half a stop is none."""
        if self._left:
            _, late = await asyncio.wait(self._left, timeout=_LEFT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def serve(self, socket: WebSocket, visitor: Visitor) -> None:
        """Serve one browser until it goes or the server ends."""
        if self._count >= MOST_BROWSERS:
            await socket.close(1013, "too many browsers")
            return
        self._count += 1
        await socket.accept()
        viewer = Viewer()
        try:
            await self._moment.welcome(viewer, visitor)
            self._feed.join(viewer)
            await self._until_one_ends(_Session(socket, visitor, viewer, self._actions, self._feed))
        finally:
            self._count -= 1
            self._moment.leave(viewer)
            self._feed.leave(viewer)
            self._actions.lab.control.leave(visitor.client, "its page was closed")

    async def _until_one_ends(self, session: _Session) -> None:
        work = [asyncio.create_task(session.send()), asyncio.create_task(session.receive())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            for task in session.tasks:
                self._left.add(task)
                task.add_done_callback(self._left.discard)


class _Session:
    def __init__(self, socket: WebSocket, visitor: Visitor, viewer: Viewer, actions: Actions, feed: Feed) -> None:
        self._socket = socket
        self._visitor = visitor
        self._viewer = viewer
        self._actions = actions
        self._feed = feed
        self.tasks: set[asyncio.Task[None]] = set()
        self._messages = Rate(200, 400)
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "credit": self._credit,
            "streams": self._streams,
            "traces": self._traces,
            "image": self._image,
            "no image": self._no_image,
            "do": self._do,
        }

    async def send(self) -> None:
        """What waits for the browser, as fast as it takes it; ends when it is gone."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            while True:
                text, data = await self._viewer.next()
                async with asyncio.timeout(_SEND_S):
                    if data is not None:
                        await self._socket.send_bytes(data)
                        self._feed.make_more()
                    else:
                        await self._socket.send_text(text or "")
        with contextlib.suppress(RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):  # one that takes nothing takes no farewell, either
                await self._socket.close(1001)

    async def receive(self) -> None:
        """What the browser says, until it goes."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                self._take(message.get("text") or message.get("bytes") or b"")

    def _take(self, raw: str | bytes) -> None:
        try:
            said = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        kind = cast("dict[str, Any]", said).get("type") if isinstance(said, dict) else None
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            self._refuse(None, Refusal(400, "Malformed", "a message is an object with a known type"))
            return
        message = cast("dict[str, Any]", said)
        stops = kind == "do" and message.get("name") in STOPS
        if not stops and not self._messages.take("browser"):
            self._refuse(message.get("id"), Refusal(429, "TooMany", "too many messages; wait a second"))
            return
        try:
            handler(message)
        except (TypeError, ValueError, OverflowError) as error:
            self._refuse(message.get("id"), Refusal(400, "Malformed", f"{kind}: {error}"))

    def _credit(self, message: dict[str, Any]) -> None:
        self._viewer.give(int(message.get("rows", 0)), int(message.get("images", 0)))
        self._feed.look_again()

    def _streams(self, message: dict[str, Any]) -> None:
        self._feed.want_streams(self._viewer, _names(message))

    def _traces(self, message: dict[str, Any]) -> None:
        self._feed.want_traces(self._viewer, _names(message))

    def _image(self, message: dict[str, Any]) -> None:
        stream = str(message.get("stream", ""))
        if stream not in self._viewer.views and len(self._viewer.views) >= 4:
            raise ValueError("at most four cameras at once")
        self._viewer.views[stream] = View(
            _number(message.get("low")),
            _number(message.get("high")),
            cast("Any", _numbers(message.get("region"), int)),
            cast("Any", _numbers(message.get("line"), float)),
        )
        self._feed.look_again()

    def _no_image(self, message: dict[str, Any]) -> None:
        self._viewer.views.pop(str(message.get("stream", "")), None)
        self._feed.look_again()

    def _do(self, message: dict[str, Any]) -> None:
        name, target, number = message.get("name"), message.get("target"), message.get("id")
        if len(self.tasks) >= MOST_IN_HAND and name not in STOPS:
            self._refuse(number, Refusal(429, "TooMany", f"{MOST_IN_HAND} of your requests are in hand"))
            return
        target = None if target is None else str(target)
        task = asyncio.create_task(self._perform(number, str(name), target, message.get("body")))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _perform(self, number: Any, name: str, target: str | None, body: Any) -> None:
        try:
            result = await self._actions.perform(self._visitor, name, target, body)
        except Refusal as refusal:
            self._refuse(number, refusal)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the connection of its browser
            _log.error("an action failed", action=name, error=repr(error))
            self._refuse(number, Refusal(500, type(error).__name__, "the server failed at this; its log says more"))
        else:
            self._viewer.answer(to_json({"type": "done", "id": number, "ok": True, "result": result}))

    def _refuse(self, number: Any, refusal: Refusal) -> None:
        answer = {"type": "done", "id": number, "ok": False, "status": refusal.status, **refusal.body()}
        self._viewer.answer(to_json(answer))


def _names(message: dict[str, Any]) -> frozenset[str]:
    names: Any = message.get("names")
    return frozenset(map(str, cast("list[Any]", names)[:MOST_STREAMS])) if isinstance(names, list) else frozenset()


def _number(value: Any) -> float | None:
    if value is None:
        return None
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("a number that is none")
    return found


def _numbers(value: Any, kind: type[float]) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("four numbers are needed")
    given = cast("list[Any]", value)
    found = tuple(kind(_number(one) or 0) for one in given)
    if len(found) != 4:
        raise ValueError("four numbers are needed")
    return found
