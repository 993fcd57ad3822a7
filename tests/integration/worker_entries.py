"""What the tests of workers have these do: each is called in a new worker with its link and its way for descriptors."""

import gc
import json
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path


def echo(link, fds):
    link.sendall(b"up")
    while data := link.recv(1000):
        link.sendall(data)


def describe(link, fds):
    import numpy

    link.sendall(
        json.dumps(
            {
                "pid": os.getpid(),
                "group": os.getpgid(0),
                "session": os.getsid(0),
                "open": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
                "given": [link.fileno(), fds.fileno()],
                "stdin": os.readlink("/proc/self/fd/0"),
                "comm": Path("/proc/self/comm").read_text().strip(),
                "cwd": os.getcwd(),
                "path": sys.path,
                "environ": dict(os.environ),
                "random": random.random(),
                "numpy": float(numpy.random.random()),
                "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
                "child": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
                "pipe": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
                "masked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "threads": len(os.listdir("/proc/self/task")),
                "blocking": link.getblocking(),
                "collects": gc.isenabled(),
                "modules": sorted(sys.modules),
            }
        ).encode()
    )
    link.recv(1)


def passes(link, fds):
    _, (fd,), _, _ = socket.recv_fds(fds, 10, 1)
    os.write(fd, b"through")


def returns(link, fds):
    sys.stdout.write("said without a newline")


def says(link, fds):
    os.write(2, b"to stderr\n")
    sys.stdout.write("to stdout")
    sys.exit(7)


def raises(link, fds):
    raise RuntimeError("an entry point that fails")


def interrupted_by_itself(link, fds):
    os.kill(os.getpid(), signal.SIGSEGV)


def leaves_a_thread(link, fds):
    threading.Thread(target=threading.Event().wait, args=(60,)).start()


def stubborn(link, fds):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Event().wait()


def bomb(link, fds):
    from duodaq.workers._memory_limit import limit_memory

    limit_memory(64 << 20)
    kept = bytearray(16 << 20)
    try:
        bytearray(200 << 20)
    except MemoryError:
        link.sendall(b"refused" if kept is not None else b"")


def slept(link, fds):
    import asleep

    link.sendall(b"%d" % (asleep.now_ns() - asleep.begun_ns))


def start_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def patch():
    os.environ["PATCHED"] = "yes"
    os.patched_by_a_test = True


def patched(link, fds):
    link.sendall(b"yes" if hasattr(os, "patched_by_a_test") else b"no")
    link.recv(1)
