"""One connection to a server outside, with a moment at which it ends, whatever the server does meanwhile.

The time-outs of these libraries are for each step, and a server that says a little in each of them goes on for ever.
So a watch hangs up at that moment, through a descriptor of its own: it works below TLS, and in the middle of a read.
"""

from __future__ import annotations

import contextlib
import http.client
import smtplib
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Generator
from typing import Any

from duodaq.clock import Deadline


class Connection:
    """Opens sockets for one errand, and hangs all of them up when its time is over.

    Args:
        limit: When.
        step_s: How long each step may take.
    """

    def __init__(self, limit: Deadline, step_s: float) -> None:
        self.limit = limit
        self._step_s = step_s
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._over = False
        self._taken = False

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Within this, the limit holds.

        Raises:
            TimeoutError: It was reached; what was in hand has been cut.
        """
        watch = threading.Timer(self.limit.left_s, self._hang_up)
        watch.name, watch.daemon = "alarm messenger's watch", True
        watch.start()
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # noqa: BLE001 - it is raised below, if it is not the watch's own doing
            error = caught
        finally:
            watch.cancel()
            watch.join()
            for one in self._open:
                one.close()
        if self._taken:
            return
        if self._over:  # what was cut may look whole: headers end with the connection, too
            raise TimeoutError("the server did not come to an end in time") from error
        if error is not None:
            raise error

    def taken(self) -> None:
        """It was whole, unless it was cut: whatever becomes of the connection from now on makes no difference."""
        with self._lock:
            self._taken = not self._over

    def _hang_up(self) -> None:
        with self._lock:
            self._over = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def open(self, address: tuple[str, int], *_: Any) -> socket.socket:
        """A socket at `address`, whichever of its hosts takes it.

        Raises:
            OSError: None did, in time.
        """
        failed: OSError = TimeoutError("no time is left")
        for family, kind, protocol, _name, place in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
            if self.limit.passed:
                break
            one = socket.socket(family, kind, protocol)
            try:
                one.settimeout(min(self._step_s, self.limit.left_s + 0.001))
                one.connect(place)
                one.settimeout(self._step_s)
                self._watch(one)
            except OSError as error:
                one.close()
                failed = error
            else:
                return one
        raise failed

    def _watch(self, one: socket.socket) -> None:
        with self._lock:
            if self._over:
                raise TimeoutError("no time is left")
            self._open.append(one.dup())


def opener(connection: Connection) -> urllib.request.OpenerDirector:
    """What opens URLs by such connections, and follows no redirection: behind one, nobody has been told anything."""

    def by(kind: Callable[..., Any]) -> Any:
        def made(*args: Any, **facts: Any) -> Any:
            one = kind(*args, **facts)
            one._create_connection = connection.open  # the one place where it makes its socket
            return one

        return made

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(by(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(by(http.client.HTTPSConnection), req, context=ssl.create_default_context())

    return urllib.request.build_opener(Http, Https, _NoRedirection)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """It is an error as any other answer that is none of success."""


class Smtp(smtplib.SMTP):
    """SMTP by such a connection; with a context, secured from the first byte."""

    def __init__(self, connection: Connection, host: str, port: int, trusted: ssl.SSLContext | None) -> None:
        self._connection, self._trusted, self._name = connection, trusted, host
        super().__init__(host, port)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """As smtplib asks for one."""
        plain = self._connection.open((host, port))
        return plain if self._trusted is None else self._trusted.wrap_socket(plain, server_hostname=self._name)
