"""What a manager and its fork server say to each other.

A request is one packet on the control socket, with descriptors beside it; each brings the socket on which its own
answers come, so that nobody has to share a reader and any number of loops and threads can ask at once.

* `Hello` with (status): answered by `Ready` once everything is loaded.
* `Order` with (status, link, fds[, stdout, stderr]): answered by `Forked` with the child's pidfd beside it, and by
  `Ended` when the child has been reaped; or by `Refused`.

The server takes the end of a status socket as "nobody wants this child any more", and kills it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence

import msgspec

from duodaq.errors import LifecycleError

ORDER_BYTES = 1 << 17
"""The longest request: below the kernel's default limit for one packet (208 kB)."""

ANSWER_BYTES = 1 << 14

PRELOAD_VARIABLE = "DUODAQ_PRELOAD"
"""``module:function;module:function``: called once after loading, so that every worker inherits what they did."""

FORCED_ENVIRONMENT = {b"OPENBLAS_NUM_THREADS": b"1", b"JE_ARROW_MALLOC_CONF": b"background_thread:false"}
"""Without these numpy and pyarrow start threads when they are loaded, and what has threads must not fork. A worker
keeps them, for the libraries that it loads itself, unless the program sets them."""


class Order(msgspec.Struct, tag=True, frozen=True):
    """A child wanted: what it shall run, and how its surroundings differ from the server's own.

    What it shall do before is in `preload`: modules to import, and functions to call as ``"module:function"``,
    each with what it shall call where it may rest.
    """

    entry: str
    preload: tuple[str, ...] = ()
    paced: bool = False
    cwd: bytes | None = None
    path: tuple[bytes, ...] = ()
    environ: tuple[tuple[bytes, bytes | None], ...] = ()


class Hello(msgspec.Struct, tag=True, frozen=True):
    """Are you ready?"""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """All is loaded, orders are taken."""


class Forked(msgspec.Struct, tag=True, frozen=True):
    """The child is there; its pidfd comes beside this."""

    pid: int


class Refused(msgspec.Struct, tag=True, frozen=True):
    """There will be no child. `broken`: nor will there ever be one from this server."""

    reason: str
    broken: bool = False


class Ended(msgspec.Struct, tag=True, frozen=True):
    """The child has been reaped: its exit code, or the number of the signal that ended it as a negative one."""

    code: int


Request = Order | Hello
Answer = Ready | Forked | Refused | Ended

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def order_for_here(
    entry: str, preload: Sequence[str] = (), *, paced: bool = False, known: Mapping[bytes, bytes] | None = None
) -> Order:
    """An order for a child with this process's working directory, import path and environment as they are now.

    Args:
        entry: ``"module:function"``, called with (link, fds).
        preload: Modules to import before, and functions to call, as ``"module:function"``.
        paced: Import them at a quarter of the speed until the first message comes.
        known: The environment that the server has; only differences are sent. None: it has this process's own.
    """
    try:
        cwd = os.getcwdb()
    except OSError:
        cwd = None  # it has been deleted; the child stays where the server stands
    changes = () if known is None else environment_changes(known, os.environb)
    return Order(entry, tuple(preload), paced, cwd, tuple(os.fsencode(place) for place in sys.path), changes)


def environment_changes(
    known: Mapping[bytes, bytes], wanted: Mapping[bytes, bytes]
) -> tuple[tuple[bytes, bytes | None], ...]:
    """What turns `known` into `wanted`: (name, value), with None for what goes. Forced variables do not go."""
    set_ = [(name, value) for name, value in wanted.items() if known.get(name) != value]
    gone = [(name, None) for name in known if name not in wanted and name not in FORCED_ENVIRONMENT]
    return (*set_, *gone)


def standard_output() -> list[int]:
    """The descriptors of this process's stdout and stderr, as they are now; empty if either is closed."""
    try:
        for fd in (1, 2):
            os.fstat(fd)
    except OSError:
        return []
    return [1, 2]


def status_pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair for the answers to one request."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def descriptor_pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair that keeps packets apart, for passing descriptors."""
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)


Pair = Callable[[], tuple[socket.socket, socket.socket]]


@contextlib.contextmanager
def socket_pairs(*kinds: Pair) -> Generator[tuple[list[socket.socket], list[socket.socket]]]:
    """The near and the far ends of new socket pairs; closed at the end, but for those that were taken with `kept`.

    Raises:
        LifecycleError: There is no room for them. None is open.
    """
    near: list[socket.socket] = []
    far: list[socket.socket] = []
    try:
        for kind in kinds:
            try:
                ends = kind()
            except OSError as exc:
                raise LifecycleError(f"no sockets for a worker: {exc}") from exc
            near.append(ends[0])
            far.append(ends[1])
        yield near, far
    finally:
        for end in (*near, *far):
            end.close()


def kept(sock: socket.socket) -> socket.socket:
    """The same socket, non-blocking, and no longer that of the block which opened it."""
    mine = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    mine.setblocking(False)
    return mine


def receive(sock: socket.socket, size: int, descriptors: int) -> tuple[bytes, list[int]]:
    """One packet and the descriptors beside it, none of them inheritable by programs that are started later.

    Raises:
        OSError: Nothing is there yet, or descriptors were lost because this process has no room for more.
    """
    flags = socket.MSG_CMSG_CLOEXEC if sys.platform == "linux" else 0
    data, fds, result, _ = socket.recv_fds(sock, size, descriptors, flags)
    if result & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise OSError("descriptors were lost on their way: too many are open")
    return data, fds
