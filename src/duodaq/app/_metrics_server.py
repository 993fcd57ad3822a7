"""Metrics for a scraper on this machine: as much of HTTP as one GET takes, on the lab's own loop, without a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from duodaq.errors import ConfigError
from duodaq.telemetry import CONTENT_TYPE, OPENMETRICS_TYPE, wants_openmetrics

REQUEST_S = 5.0
"""How long a client may take to ask, and to take the answer."""
_MOST_CLIENTS = 8
_MOST_BYTES = 16384
_HOSTS = frozenset({"localhost", "127.0.0.1", ""})


class MetricsServer:
    """Answers ``GET /metrics`` on 127.0.0.1.

    Args:
        port: The TCP port; 0 for any.
        exposition: What gives the metrics, by whether OpenMetrics is wanted.
        file: The lab file, for the error.
    """

    def __init__(self, port: int, exposition: Callable[[bool], bytes], file: Path | None = None) -> None:
        self.port = port
        self._exposition = exposition
        self._file = file
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; `port` is then where.

        Raises:
            ConfigError: The port is taken.
        """
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_MOST_BYTES)
        except OSError as error:
            what = f"{self.port} cannot be listened to: {(error.strerror or str(error)).lower()}"
            raise ConfigError(what, file=self._file, key="metrics.port", remedy="Choose another port") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Listen no more, and hang up. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in tuple(self._clients):
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            async with asyncio.timeout(REQUEST_S):
                busy = len(self._clients) > _MOST_CLIENTS
                writer.write(_answer(503, b"too many at once\n") if busy else await self._reply_to(reader))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.LimitOverrunError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _reply_to(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, _, rest = head[0].partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if fields.get("host", "").partition(":")[0] not in _HOSTS:
            return _answer(403, b"this is served to this machine alone\n")
        if path != "/metrics":
            return _answer(404, b"there is /metrics\n")
        if method != "GET":
            return _answer(405, b"GET it\n")
        openmetrics = wants_openmetrics(fields.get("accept", ""))
        return _answer(200, self._exposition(openmetrics), OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE)


_WORDS = {200: "OK", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def _answer(code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    head = f"HTTP/1.1 {code} {_WORDS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
