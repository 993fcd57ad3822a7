"""Programs for the tests, forked from a process that has loaded them: a simulator in 25 ms of processor time, not 250.

    python -P _nursery.py -m duodaq.sim FD

serves orders on the socket FD until that ends; the words before it are for whoever looks which processes are
simulators. With ``-m duodaq.cli`` it begins commands of duodaq's and scripts. Rules for whoever edits this:

* It has one thread of Python's, opens nothing, and runs nothing of a program before it has forked. What an order brings
  is all that a program gets: its arguments, its environment, its folder, its three standard streams, a session of its
  own.
* Whoever ordered it is its parent, by CLONE_PARENT: it is waited for, signalled and missed as if it had been started
  there. It ends by itself when its stdin does, like any other.
* It is for tests that need programs. Those of how programs are started start them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
LONGEST = 1 << 20
Begin = Callable[[socket.socket, socket.socket], "subprocess.Popen[bytes] | None"]
SIMULATORS, COMMANDS = "duodaq.sim", "duodaq.cli"
PROGRAMS = {SIMULATORS: ("duodaq.sim", "duodaq.sim.table"), COMMANDS: ("duodaq.cli",)}
LOADED = {
    SIMULATORS: ("duodaq.sim._process", "duodaq.sim.table.__main__"),
    COMMANDS: ("duodaq", "duodaq.app", "duodaq.bluesky", "duodaq.cli._app", "duodaq.storage.reading", "duodaq.web"),
}


def at_hand() -> bool:
    """Whether this system has what it takes."""
    return sys.platform == "linux" and CLONE is not None


class Nursery:
    """The process, and what starts programs of its `kind` by it as `subprocess.Popen` does."""

    def __init__(self, kind: str = SIMULATORS, begin: Begin | None = None) -> None:
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            for end in (self._line, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
            self._process = begun(far, kind) if begin is None else begin(far, self._line)
        line, lock = self._line, threading.Lock()

        class Forked(subprocess.Popen[bytes]):
            def _execute_child(self, *given: Any) -> None:
                usual: Any = getattr(super(), "_execute_child")  # noqa: B009 - no type knows it
                asked = inspect.signature(usual).bind(*given).arguments
                argv = _program(kind, list(asked["args"]))
                if argv is None:
                    usual(*given)
                    return
                env, cwd = asked["env"] or os.environ, asked["cwd"] or os.getcwd()
                order = {"argv": argv, "env": dict(env), "cwd": os.fspath(cwd)}
                ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
                streams = [usually if end < 0 else end for usually, end in enumerate(ends)]
                with lock:
                    socket.send_fds(line, [json.dumps(order).encode()], streams)
                    pid = line.recv(64)
                if not pid:
                    raise RuntimeError("what programs are forked from has ended")
                self.pid = int(pid)
                self._child_created = True
                pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
                getattr(self, "_close_pipe_fds")(*[asked[name] for name in pipes])  # noqa: B009 - no type knows it

        self.popen: Callable[..., subprocess.Popen[Any]] = Forked

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


def _program(kind: str, words: list[str]) -> list[str] | None:
    """What is to be forked of a command line, None if it is no program of that kind: a module, or a script's file."""
    _, *rest = words
    if rest[0] == "-m" and rest[1] in PROGRAMS[kind]:
        return rest[1:]
    return rest if kind == COMMANDS and rest[0].endswith(".py") else None


def begun(far: socket.socket, kind: str) -> subprocess.Popen[bytes]:
    """A nursery as a new program."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__, "-m", kind, str(far.fileno())],
        pass_fds=[far.fileno()],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )


def forked(far: socket.socket, near: socket.socket) -> None:
    """A nursery from this process as it is, which has one thread and has loaded what simulators need."""
    if not os.fork():
        near.close()  # or it would never see that end
        serve(far, SIMULATORS)
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


def become(order: dict[str, Any], streams: list[int]) -> int | str | None:
    """The program's exit code, if it has one."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None
    program, *arguments = order["argv"]
    if program in PROGRAMS[SIMULATORS]:
        name = {"duodaq.sim": "duodaq.sim._process", "duodaq.sim.table": "duodaq.sim.table.__main__"}[program]
        return importlib.import_module(name).main(arguments)
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115 - as an interpreter's, to its end
    sys.stdout = open(1, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115 - likewise
    sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115 - likewise
    sys.argv[1:] = arguments
    if program.endswith(".py"):
        sys.argv[0] = program
        path = os.path.abspath(program)
        sys.path.insert(0, os.path.dirname(path))
        sys.modules["__main__"] = script = types.ModuleType("__main__")
        script.__file__ = path
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec"), vars(script))
    else:
        sys.path.insert(0, order["cwd"])
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    return None


def main() -> None:
    *_, kind, number = sys.argv
    serve(socket.socket(fileno=int(number)), kind)


def serve(line: socket.socket, kind: str) -> None:
    for name in LOADED[kind]:
        with contextlib.suppress(ImportError):  # of an extra that is not there
            module = importlib.import_module(name)
            for one in getattr(module, "__all__", ()):
                getattr(module, one)
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(line, LONGEST, 3)
        if not data:
            return
        pid = fork_beside()
        if not pid:
            line.close()
            ended(json.loads(data), streams)
        for stream in streams:
            os.close(stream)
        line.send(str(pid).encode())


def ended(order: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be that program, and end as an interpreter does."""
    code: int | str | None = 1
    try:
        code = become(order, streams)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - whatever it was is said as an interpreter says it
        traceback.print_exc()
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    with contextlib.suppress(BaseException):
        getattr(threading, "_shutdown")()  # noqa: B009 - it waits for the threads of the program
        getattr(atexit, "_run_exitfuncs")()  # noqa: B009 - no type knows it
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    main()
