"""The fork server: ``python -P -m duodaq.workers._fork_main FD``.

One thread, everything loaded that workers need, and a control socket at FD. Rules for whoever edits this:

* It must stay single-threaded. What a thread held at the moment of a fork stays held in the child for ever, so an
  order is refused while there is a second thread, whoever started it.
* What it opens it also closes in the child (`_Server.abandon`); nothing else is open in it.
* The child never returns into these frames: it ends by `os._exit`.
* The end of the control socket means that the program is gone, however it went. Nobody else can kill its workers then.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import inspect
import os
import select
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from duodaq.clock import Deadline
from duodaq.workers._fork_child import become_worker, call_named, reset_signals
from duodaq.workers._fork_order import (
    ORDER_BYTES,
    PRELOAD_VARIABLE,
    Answer,
    Ended,
    Forked,
    Hello,
    Order,
    Ready,
    Refused,
    decode_request,
    encode,
    receive,
)
from duodaq.workers._huge_pages import collapse_heap
from duodaq.workers._orphans import Orphans, adopt_orphans

PRELOAD = (
    "numpy",
    "numpy.random",
    "pyarrow",
    "msgspec",
    "structlog",
    "duodaq.ports",
    "duodaq.link",
    "duodaq.dataplane",
    "duodaq.telemetry",
    "duodaq.v2",
    "duodaq.v2.families",
    "duodaq.v4",
    "duodaq.v4.instruments",
    "duodaq.drivers",
    "duodaq.workers._worker_main",
    "duodaq.workers._rehearsal",
)
"""What every worker needs."""

PRELOAD_IF_THERE = ("uvloop",)

LAST_WAIT_S = 2.0


def preload(control: socket.socket) -> None:
    """Load what every worker needs; call what the environment names. Raises whatever goes wrong.

    Stops early when the program at the other end of `control` is gone.
    """
    for name in PRELOAD:
        if _hung_up(control):
            return
        importlib.import_module(name)
    for name in PRELOAD_IF_THERE:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    inspect.signature(object)  # of a class without __init__; compiles what takes each worker 10 ms otherwise
    call_named(os.environ.get(PRELOAD_VARIABLE, ""))


@dataclass(frozen=True, slots=True)
class _Kept:
    pid: int
    pidfd: int
    status: socket.socket


class _Server:
    """Takes orders, forks, reaps, reports; until the control socket ends."""

    def __init__(self, control: socket.socket, broken: str | None) -> None:
        self._control = control
        self._broken = broken
        self._children: dict[int, _Kept] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._take_request)
        self._orphans = Orphans(self._children, self._selector)
        self._ended = False

    def serve(self) -> None:
        """Serve until the program is gone, then kill what is left."""
        while not self._ended:
            for key, _ in self._selector.select():
                react: Callable[[], None] = key.data
                react()
        self._kill_all()

    def abandon(self) -> None:
        """In a child: close everything that is the server's."""
        self._selector.close()
        self._control.close()
        for kept in self._children.values():
            kept.status.close()
            os.close(kept.pidfd)
        self._orphans.close()

    def _take_request(self) -> None:
        try:
            data, fds = receive(self._control, ORDER_BYTES, 5)
        except ConnectionError:
            data, fds = b"", []
        except OSError:
            return  # no room for its descriptors: the kernel has closed them, and whoever asked sees that
        if not data or not fds:
            self._ended = True  # a request always brings descriptors
            return
        status = socket.socket(fileno=fds[0])
        status.setblocking(False)
        request = decode_request(data)
        refusal = self._refusal()
        if refusal is not None:
            _say(status, refusal)
        elif isinstance(request, Hello):
            _say(status, Ready())
        elif self._fork(request, status, fds[1:]):
            return
        status.close()
        for fd in fds[1:]:
            os.close(fd)

    def _refusal(self) -> Refused | None:
        if self._broken is not None:
            return Refused(self._broken, broken=True)
        threads = os.listdir("/proc/self/task")
        if len(threads) > 1:
            names = ", ".join(sorted(_thread_name(thread) for thread in threads if int(thread) != os.getpid()))
            return Refused(
                f"it has {len(threads)} threads and must have one to fork; something loaded started: {names}"
            )
        return None

    def _fork(self, order: Order, status: socket.socket, fds: list[int]) -> bool:
        """True if there is a child; then the descriptors are closed here."""
        try:
            pid = os.fork()
        except OSError as exc:
            _say(status, Refused(f"it cannot fork: {exc}"))
            return False
        if pid == 0:
            try:
                status.close()
                self.abandon()
                become_worker(order, socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]), fds[2:])
            finally:
                os._exit(1)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as exc:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _say(status, Refused(f"it cannot watch a child: {exc}"))
            return False
        for fd in fds:
            os.close(fd)
        kept = self._children[pid] = _Kept(pid, pidfd, status)
        self._selector.register(kept.pidfd, selectors.EVENT_READ, lambda: self._reap(kept))
        self._selector.register(status, selectors.EVENT_READ, lambda: self._unwanted(kept))
        _say(status, Forked(pid), kept.pidfd)
        return True

    def _reap(self, kept: _Kept) -> None:
        _kill_group(kept)
        _, status = os.waitpid(kept.pid, 0)
        _say(kept.status, Ended(os.waitstatus_to_exitcode(status)))
        del self._children[kept.pid]
        self._selector.unregister(kept.pidfd)
        if kept.status in self._selector.get_map():
            self._selector.unregister(kept.status)
        kept.status.close()
        os.close(kept.pidfd)
        self._orphans.end()

    def _unwanted(self, kept: _Kept) -> None:
        if self._children.get(kept.pid) is kept:  # else it was reaped a moment ago
            self._selector.unregister(kept.status)
            signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)

    def _kill_all(self) -> None:
        for kept in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)
            _kill_group(kept)
        deadline = Deadline(LAST_WAIT_S)
        for kept in self._children.values():
            with selectors.DefaultSelector() as dying:
                dying.register(kept.pidfd, selectors.EVENT_READ)
                dying.select(deadline.left_s)
        self._selector.close()
        with selectors.DefaultSelector() as selector:
            Orphans(frozenset[int](), selector).end_all(deadline)


def _kill_group(kept: _Kept) -> None:
    """End what a driver started there: it would keep the device. The number is nobody else's until it is reaped."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(kept.pid, signal.SIGKILL)


def _say(status: socket.socket, answer: Answer, *fds: int) -> None:
    with contextlib.suppress(OSError):  # whoever asked has gone; the end of this socket is seen by the loop
        socket.send_fds(status, [encode(answer)], fds)


def _hung_up(control: socket.socket) -> bool:
    poll = select.poll()
    poll.register(control, 0)
    return bool(poll.poll(0))


def _thread_name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm") as comm:
            return comm.read().strip()
    except OSError:
        return "one that has ended since"


def main() -> None:
    """Load, then serve on the socket whose descriptor is the only argument."""
    gc.disable()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as title:
        title.write(b"duodaq-fork")
    broken: str | None = None
    try:
        preload(control)
    except BaseException as exc:  # noqa: BLE001 - whoever asks is told, whatever it was
        traceback.print_exc()
        broken = f"it could not load what workers need: {type(exc).__name__}: {exc}"
    adopt_orphans()
    reset_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    importlib.invalidate_caches()  # folders may have changed in the moment in which they were listed
    collapse_heap()
    gc.freeze()
    _Server(control, broken).serve()


if __name__ == "__main__":
    main()
