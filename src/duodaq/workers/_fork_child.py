"""What a new worker process does before its entry point runs, and how it leaves.

It must come out like an interpreter that was started for it: signals at their defaults, streams, import path and
environment of the program that asked. It gets a process group and not a session of its own: the leader of a session
that opens a serial line without O_NOCTTY would make it its controlling terminal, and a 0x03 from an instrument would
then interrupt it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from duodaq.workers._fork_order import Order
from duodaq.workers._orphans import adopt_orphans
from duodaq.workers._title import show_as

PACE = 3.0
"""A paced import rests so many times as long as it has worked."""

LONGEST_REST_S = 0.05


def become_worker(order: Order, link: socket.socket, fds: socket.socket, output: Sequence[int] = ()) -> NoReturn:
    """Turn this single-threaded process into the ordered worker; it ends when the entry point returns.

    Args:
        order: What to run, and where.
        link: Given to the entry point.
        fds: Given to the entry point.
        output: Descriptors for stdout and stderr; without them these stay.
    """
    code = 1
    try:
        _settle(order, output)
        _preload(order, link)
        module, _, function = order.entry.partition(":")
        getattr(importlib.import_module(module), function)(link, fds)
        code = 0
    except SystemExit as exc:
        code = _exit_code(exc)
    except BaseException:  # noqa: BLE001 - nothing may climb into the fork server's own frames below
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def call_named(names: str) -> None:
    """Call each function of ``module:function;module:function``."""
    for name in filter(None, map(str.strip, names.split(";"))):
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)()


def reset_signals() -> None:
    """Every signal as a fresh interpreter has it, none of them masked."""
    signal.set_wakeup_fd(-1)
    ignored = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}  # as the interpreter itself does at start
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # KILL, STOP and those of the C library cannot be set
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _settle(order: Order, output: Sequence[int]) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(output, 1):
        os.dup2(fd, number)
        os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it is None where the program has none
            stream.reconfigure(line_buffering=True)
    for name, value in order.environ:
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value
    if order.cwd is not None:
        with contextlib.suppress(OSError):  # what needs a file from there will name it
            os.chdir(order.cwd)
    sys.path[:] = [os.fsdecode(place) for place in order.path]
    _reseed()
    show_as("spare")
    gc.enable()


def _reseed() -> None:
    """Give numpy's global generator a state of its own; the standard library reseeds its own at every fork."""
    if "numpy.random" in sys.modules:
        import numpy as np

        np.random.seed(np.frombuffer(os.urandom(32), np.uint32))  # without an argument it takes 20 times as long


def _preload(order: Order, link: socket.socket) -> None:
    """Import, and call, what the order names. What fails here fails again, and is reported, when it is needed."""
    pacer = _Pacer(link)
    if order.paced:
        sys.meta_path.insert(0, pacer)  # pyright: ignore[reportArgumentType]  # a finder needs no more than find_spec
    try:
        for name in order.preload:
            module, _, function = name.partition(":")
            with contextlib.suppress(BaseException):
                loaded = importlib.import_module(module)
                if function:
                    getattr(loaded, function)(pacer.rest if order.paced else _go_on)
    finally:
        if order.paced:
            sys.meta_path.remove(pacer)  # pyright: ignore[reportArgumentType]  # as above


def _go_on() -> None:
    """Rest not at all."""


class _Pacer:
    """A finder that finds nothing, and rests, before each import too, until the first message is there.

    An import for later must not take the processor from instruments that run now. A niceness could not be taken back
    without privileges, and a niced thread would leave behind what modules set for their own thread or context.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._used_s = time.process_time()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.rest()

    def rest(self) -> None:
        """Rest for what has been worked since the last time."""
        used_s = time.process_time() - self._used_s
        if used_s > 0.001:
            select.select([self._link], [], [], min(PACE * used_s, LONGEST_REST_S))
            self._used_s = time.process_time()


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{exc.code}\n")
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
