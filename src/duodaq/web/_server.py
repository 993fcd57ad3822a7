"""The server: its socket, its tasks, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr

from duodaq.app import Lab
from duodaq.clock import pause
from duodaq.errors import LifecycleError, PortOpenError
from duodaq.model import WebDefinition
from duodaq.telemetry import get_logger
from duodaq.web._access import Access
from duodaq.web._actions import Actions
from duodaq.web._api import make_app
from duodaq.web._feed import Feed
from duodaq.web._live import LARGEST_MESSAGE, Live
from duodaq.web._log import LogTail
from duodaq.web._moment import Moment

FIRST_PORT, LAST_PORT = 8400, 8499
REQUESTS_PER_S = 200.0
MOST_CONNECTIONS = 256
MOST_OF_ONE_MACHINE = 128
REQUEST_S = 10.0
UNREAD_S = 20.0
_log = get_logger("web")


class PageServer:
    """Serves a lab's page and API, on the lab's own loop.

    ::

        async with PageServer(lab) as page:
            print(page.address)

    Args:
        lab: The lab; it may not be started yet, and may end before the server does.
        web: Where, and for whom; as the lab file says if not given.
        requests_per_s: How many requests of one machine are answered. A stop is never too many.

    Raises:
        ConfigError: It would let strangers in without a token. Nothing was opened.
    """

    def __init__(self, lab: Lab, web: WebDefinition | None = None, *, requests_per_s: float = REQUESTS_PER_S) -> None:
        self._lab = lab
        self._web = lab.definition.web if web is None else web
        self._socket: socket.socket | None = None
        self._started = False
        self._stack = contextlib.AsyncExitStack()
        self._files = ThreadPoolExecutor(1, "duodaq-page-files")
        self._pictures = ThreadPoolExecutor(1, "duodaq-page-pictures")
        self._log = LogTail()
        access = Access(self._web, lab.definition.name)
        self._actions = Actions(lab, access, self._log, self._files)
        self._feed = Feed(lab, self._pictures)
        self._moment = Moment(lab, self._actions, self._feed)
        self._live = Live(self._actions, self._feed, self._moment)
        self._app = make_app(self._actions, self._feed, self._moment, self._live, requests_per_s)

    @property
    def address(self) -> str:
        """The page's address, for a person on this machine.

        Raises:
            LifecycleError: It is not served.
        """
        if self._socket is None:
            raise LifecycleError("the page is not served")
        bound, port = self._socket.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, str(bound))
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    async def __aenter__(self) -> PageServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            LifecycleError: It was started before.
            PortOpenError: Its TCP port is taken, or the address is not this machine's. Nothing is left open.
        """
        if self._started:
            raise LifecycleError("this server was started before; make another one")
        self._socket = _listen(self._web)
        self._started = True
        stack = self._stack
        for thread in (self._files, self._pictures):
            stack.callback(thread.shutdown)
        stack.enter_context(self._log)
        stack.callback(self._lab.manager.broker.subscribe_stops(self._actions.note_stop))
        theirs = logging.getLogger("uvicorn")
        theirs.addHandler(_TO_OUR_LOG)
        theirs.propagate = False
        for part in (
            self._actions.visitors,
            self._actions.work.jobs,
            self._actions.operations,
            self._feed,
            self._moment,
            self._live,
        ):
            stack.push_async_callback(part.aclose)
        self._feed.start()
        server = _Uvicorn(_config(self._app))
        serving = asyncio.create_task(server.serve([self._socket]), name="page")
        stack.push_async_callback(_end, server, serving)
        while not server.started and not serving.done():
            await pause(0.005)
        self._lab.page = self.address
        _log.info("the page is served", address=self.address)

    async def aclose(self) -> None:
        """Serve no longer: browsers are told, and come back when there is a server again. Idempotent."""
        await self._stack.aclose()
        if self._socket is not None:
            self._lab.page = None
            self._socket.close()
            self._socket = None


class _ToOurLog(logging.Handler):
    """What uvicorn has to say that is worth a line, in the lab's own log; a refused browser is none."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        said = record.getMessage().strip()
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return  # it was told to, and that is said once:
        if said.endswith("timeout graceful shutdown exceeded"):
            _log.warning("a request in hand ended with the server")
        elif "without completing handshake" not in said:
            _log.error(said, server=record.name, exc_info=record.exc_info)


_TO_OUR_LOG = _ToOurLog(logging.WARNING)


class _BoundedHttp(H11Protocol):
    """Connections are few, bring each request soon, and take its answer: they need descriptors that the ports need."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn has it
        """Take it, or cut it off at once."""
        self._unread: asyncio.TimerHandle | None = None
        peer = get_remote_addr(transport)
        of_this = sum(_peer_of(one) == (peer or ("",))[0] for one in self.connections)
        if len(self.connections) >= MOST_CONNECTIONS or of_this >= MOST_OF_ONE_MACHINE:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self._expect_a_request()

    def on_response_complete(self) -> None:
        """It may ask once more, but half a request keeps it no longer than none."""
        super().on_response_complete()
        self._expect_a_request()

    def pause_writing(self) -> None:
        """The other end does not take what it asked for."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def _expect_a_request(self) -> None:
        self.loop.call_later(REQUEST_S, self._cut_off_if_silent, self.cycle)

    def _cut_off_if_silent(self, last: object) -> None:
        if self.cycle is last and self in self.connections:
            self.transport.close()


def _peer_of(connection: object) -> str | None:
    """From which machine it comes; connections are of several kinds, of one shape."""
    client: tuple[str, int] | None = getattr(connection, "client", None)
    return None if client is None else client[0]


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: this program has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] - an ASGI application, typed by us a little wider
        lifespan="off",
        log_config=None,
        access_log=False,
        http=_BoundedHttp,
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        backlog=128,
    )


async def _end(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait([serving], timeout=5.0)
    if not serving.done():
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _listen(web: WebDefinition) -> socket.socket:
    """A listening socket: at the port that was asked for, or the first free one of ours."""
    wanted = [web.port] if web.port is not None else [*range(FIRST_PORT, LAST_PORT + 1), 0]
    for port in wanted:
        try:
            return socket.create_server((web.host, port), family=_family(web.host), backlog=128)
        except OSError as error:
            if port == wanted[-1] or web.port is not None or not _taken(error):
                what = f"the page cannot be served at {web.host}:{port}: {error.strerror or error}"
                raise PortOpenError(what, left="the lab goes on without it") from error
    raise AssertionError("port 0 is always tried")


def _taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
