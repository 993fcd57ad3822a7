from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import Any, Self

from duodaq.errors import DeliveryError, LifecycleError, MailboxFullError, ReplyTimeoutError
from duodaq.link._connection import Connection
from duodaq.link._error import error_from_wire
from duodaq.telemetry import current_trace_id

_HELLO_S = 5.0


class LinkEvents:
    """Events of one topic, oldest first; when more than `capacity` wait, the oldest is dropped and counted."""

    def __init__(self, client: LinkClient, topic: str, capacity: int) -> None:
        self.topic = topic
        self.missed = 0
        self._client = client
        self._capacity = capacity
        self._events: deque[Any] = deque()
        self._news = asyncio.Event()
        self._over = False

    def put(self, value: Any, missed: int) -> None:
        """Take an event in; `missed` were lost before it on the way."""
        self.missed += missed
        if len(self._events) >= self._capacity:
            self._events.popleft()
            self.missed += 1
        self._events.append(value)
        self._news.set()

    def take_missed(self) -> int:
        """How many events were lost since this was asked last."""
        missed, self.missed = self.missed, 0
        return missed

    def end(self) -> None:
        """There will be no more."""
        self._over = True
        self._news.set()

    def close(self) -> None:
        """Listen no more."""
        self._client.unsubscribe(self)
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._events:
            if self._over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()


class LinkClient:
    """Asks the program that serves a UNIX socket. Use `await LinkClient.open(path)`; belongs to one event loop."""

    def __init__(self, path: Path, outstanding: int) -> None:
        self.path = path
        self.outstanding = outstanding
        self.server_pid = 0
        self._connection: Connection | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listening: dict[str, list[LinkEvents]] = {}
        self._numbers = 0

    @classmethod
    async def open(cls, path: str | Path, version: int = 1, outstanding: int = 64) -> LinkClient:
        """Connect, and agree on the version.

        Raises:
            LifecycleError: Nobody serves there, it does not answer, or it refuses this program.
        """
        client = cls(Path(path), outstanding)
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(
                lambda: Connection(client._heard, client._lost), str(path)
            )
        except OSError as error:
            raise LifecycleError(f"nobody serves on {path}: {error.strerror or error}") from error
        client._connection = connection
        try:
            connection.send("hello", version)
            await asyncio.wait_for(client._greeted, _HELLO_S)
        except TimeoutError:
            await client.aclose()
            raise LifecycleError(f"no answer on {path} within {_HELLO_S:g} s") from None
        except BaseException:
            await client.aclose()
            raise
        return client

    @property
    def connected(self) -> bool:
        """Whether the server is still there, as far as is known."""
        return self._connection is not None

    async def request(self, op: str, params: dict[str, Any] | None = None, timeout_s: float | None = 5.0) -> Any:
        """Ask for `op` and return its result, or raise the error that it ended with, as the same class.

        Raises:
            ReplyTimeoutError: No answer within `timeout_s`; the request is cancelled at the server. Unknown.
            DeliveryError: The connection was lost (unknown), or is closed (not done).
            MailboxFullError: Too many requests are open. Not done.

        Cancellation: Cancels the request at the server.
        """
        if self._connection is None:
            raise DeliveryError("the link is closed", fate="not done", command=op)
        if len(self._waiting) >= self.outstanding:
            raise MailboxFullError(f"{self.outstanding} requests are open already", command=op)
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._connection.send("request", number, op, params or {}, current_trace_id())
            return await (answer if timeout_s is None else asyncio.wait_for(answer, timeout_s))
        except (TimeoutError, asyncio.CancelledError) as error:
            if not answer.cancelled():
                raise  # the answer itself was such an error
            self._cancel(number)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ReplyTimeoutError(f"no answer within {timeout_s:g} s", command=op) from None
        finally:
            self._waiting.pop(number, None)

    def _cancel(self, number: int) -> None:
        if self._connection is not None:
            with contextlib.suppress(DeliveryError):
                self._connection.send("cancel", number)

    def subscribe(self, topic: str, capacity: int = 1024) -> LinkEvents:
        """Events of `topic` from now on, for ``async for``."""
        if self._connection is None:
            raise DeliveryError("the link is closed", fate="not done")
        events = LinkEvents(self, topic, capacity)
        if topic not in self._listening:
            self._connection.send("subscribe", topic)
        self._listening.setdefault(topic, []).append(events)
        return events

    def unsubscribe(self, events: LinkEvents) -> None:
        """Listen no more with `events`."""
        listeners = self._listening.get(events.topic, [])
        if events in listeners:
            listeners.remove(events)
        if not listeners and self._listening.pop(events.topic, None) is not None and self._connection is not None:
            with contextlib.suppress(DeliveryError):
                self._connection.send("unsubscribe", events.topic)

    def _heard(self, _: Connection, message: Any) -> None:
        kind, *rest = message
        if kind == "hello" and not self._greeted.done():
            self.server_pid = rest[1]
            self._greeted.set_result(None)
        elif kind == "refused" and not self._greeted.done():
            self._greeted.set_exception(error_from_wire(rest[0]))
        elif kind == "event":
            for events in self._listening.get(rest[0], ()):
                events.put(rest[1], rest[2])
        elif kind in ("reply", "error"):
            self._answered(kind, *rest)

    def _answered(self, kind: str, number: int, outcome: Any) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return  # given up on
        if kind == "reply":
            answer.set_result(outcome)
        else:
            answer.set_exception(error_from_wire(outcome))

    def _lost(self, _: Connection) -> None:
        self._connection = None
        if not self._greeted.done():
            self._greeted.set_exception(LifecycleError(f"the server on {self.path} hung up"))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(DeliveryError("the connection to the server was lost", fate="unknown"))
        for listeners in self._listening.values():
            for events in listeners:
                events.end()

    async def aclose(self) -> None:
        """Leave. Open requests end as unknown. Idempotent."""
        connection = self._connection
        if connection is not None:
            await connection.aclose()
        if self._greeted.done() and not self._greeted.cancelled():
            self._greeted.exception()
