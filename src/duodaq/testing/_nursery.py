"""Simulators for the tests, forked from one process that has loaded them: 25 ms of processor time each, not 250.

    python -P _nursery.py -m duodaq.sim FD

serves orders on the socket FD until that ends; the words before it are for whoever looks which processes are
simulators. Rules for whoever edits this:

* It has one thread, opens nothing, and runs nothing of a simulator before it has forked. What an order brings is all
  that a simulator gets: its arguments, its environment, its folder, its three standard streams, a session of its own.
* Whoever ordered it is its parent, by CLONE_PARENT: it is waited for, signalled and missed as if it had been started
  there. It ends by itself when its stdin does, like any other.
* It is for tests that need simulators. Those of how they are started start them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
LONGEST = 1 << 20
Begin = Callable[[socket.socket, socket.socket], "subprocess.Popen[bytes] | None"]
PROGRAMS = ("duodaq.sim", "duodaq.sim.table")


def at_hand() -> bool:
    """Whether this system has what it takes."""
    return sys.platform == "linux" and CLONE is not None


class Nursery:
    """The process, and what starts simulators by it as `subprocess.Popen` does."""

    def __init__(self, begin: Begin | None = None) -> None:
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            for end in (self._line, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
            self._process = (begin or begun)(far, self._line)
        line, lock = self._line, threading.Lock()

        class Forked(subprocess.Popen[bytes]):
            def _execute_child(self, *given: Any) -> None:
                usual: Any = getattr(super(), "_execute_child")  # noqa: B009 - no type knows it
                asked = inspect.signature(usual).bind(*given).arguments
                _, _, *argv = asked["args"]
                if argv[0] not in PROGRAMS:
                    usual(*given)
                    return
                order = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}
                ends = [asked["p2cread"], asked["c2pwrite"]]
                with lock:
                    socket.send_fds(line, [json.dumps(order).encode()], [*ends, 2])
                    pid = line.recv(64)
                if not pid:
                    raise RuntimeError("what simulators are forked from has ended")
                self.pid = int(pid)
                self._child_created = True
                for end in ends:
                    os.close(end)
                self._closed_child_pipe_fds = True

        self.popen: Callable[..., subprocess.Popen[bytes]] = Forked

    def close(self) -> None:
        self._line.close()
        if self._process is not None:
            self._process.kill()  # it may be loading still
            self._process.wait()

    def adopt(self) -> None:
        """Have all simulators that are launched from now on come from here."""
        launching: Any = importlib.import_module("duodaq.sim._launch")
        launching.subprocess = types.SimpleNamespace(
            Popen=self.popen, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
        )


def begun(far: socket.socket, near: socket.socket) -> subprocess.Popen[bytes]:
    """A nursery as a new program."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__, "-m", "duodaq.sim", str(far.fileno())],
        pass_fds=[far.fileno()],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )


def forked(far: socket.socket, near: socket.socket) -> None:
    """A nursery from this process as it is, which has one thread and has loaded what simulators need."""
    if not os.fork():
        near.close()  # or it would never see that end
        serve(far)
        os._exit(0)


def fork_beside() -> int:
    """As `os.fork`, but the child is a child of this process's parent."""
    here = ctypes.PyDLL(None)  # it keeps the interpreter's lock
    here.syscall.restype = ctypes.c_long
    here.PyOS_BeforeFork()
    pid = here.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid:
        here.PyOS_AfterFork_Parent()
    else:
        here.PyOS_AfterFork_Child()
    return pid


def become(order: dict[str, Any], streams: list[int]) -> int:
    """The simulator's exit code."""
    from duodaq.sim import _process
    from duodaq.sim.table import __main__ as table

    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None
    module, *arguments = order["argv"]
    return {"duodaq.sim": _process.main, "duodaq.sim.table": table.main}[module](arguments)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[-1]))
    serve(line)


def serve(line: socket.socket) -> None:
    for name in ("duodaq.sim._process", "duodaq.sim.table.__main__"):
        importlib.import_module(name)
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(line, LONGEST, 3)
        if not data:
            return
        pid = fork_beside()
        if not pid:
            line.close()
            code: int | str | None = 1
            try:
                code = become(json.loads(data), streams)
            except SystemExit as end:
                code = end.code
            except BaseException:  # noqa: BLE001 - whatever it was is said as an interpreter says it
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)
        for stream in streams:
            os.close(stream)
        line.send(str(pid).encode())


if __name__ == "__main__":
    main()
