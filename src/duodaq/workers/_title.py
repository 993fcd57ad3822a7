"""Under which name a process stands in ``ps`` and ``top``: a forked one would be shown as the fork server."""

from __future__ import annotations

import contextlib
import os

_ARG_START, _ARG_END, _AFTER_NAME = 48, 49, 3
"""Fields of /proc/PID/stat as proc_pid_stat(5) numbers them, and the first that stands behind the name."""
_LONGEST_COMM = 15


def show_as(name: str) -> None:
    """Show this process as ``duodaq:NAME``. A long name ends early; nothing happens where the system has no such thing.

    `ps` without options shows the short name, of 15 bytes: ``duodaq:camera`` for a worker that is ``v4.camera``.
    """
    title = f"duodaq:{name}"
    short = title if len(title) <= _LONGEST_COMM else f"duodaq:{name.rpartition('.')[2]}"
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(short.encode()[:_LONGEST_COMM])
    with contextlib.suppress(OSError, ValueError, IndexError):
        _write_over_command_line(title.encode())


def _write_over_command_line(title: bytes) -> None:
    """The kernel shows what stands in this process's memory where its arguments were put at the start."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()  # the name before may hold anything
    begin, end = (int(fields[number - _AFTER_NAME]) for number in (_ARG_START, _ARG_END))
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        if end > begin > 0:
            os.pwrite(memory, title[: end - begin - 1].ljust(end - begin, b"\0"), begin)
    finally:
        os.close(memory)
