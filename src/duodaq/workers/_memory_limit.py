"""A limit on what a worker may take, so that a memory bomb ends in it and not in the machine."""

from __future__ import annotations

import os
import sys

from duodaq.errors import InstrumentError, LifecycleError

if sys.platform == "linux":
    import resource

NO_MEMORY_CODE = 75
"""What a worker's process exits with when there is no memory left to hear the manager with."""


def limit_memory(more_bytes: int) -> None:
    """Let this process take `more_bytes` more than it has now; what asks for more gets MemoryError, or dies of it.

    It counts private writable memory (heap, anonymous maps, stacks of threads): neither what libraries map to read,
    nor a shared ring. (RLIMIT_AS would count these, and the address space that allocators reserve and never touch.)

    Raises:
        LifecycleError: There is no such limit here, or the system refused. Nothing is limited.
    """
    if sys.platform != "linux":
        raise LifecycleError("a worker's memory can be limited on Linux only")
    limit = private_bytes() + more_bytes
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (ValueError, OSError) as exc:
        raise LifecycleError(f"the memory limit was refused: {exc}") from exc


def private_bytes() -> int:
    """How much private writable memory this process has mapped."""
    status = os.open("/proc/self/status", os.O_RDONLY)  # as `open` reads, a worker's first answer comes 0.5 ms later
    try:
        text = os.read(status, 1 << 14)
    finally:
        os.close(status)
    return int(text.partition(b"VmData:")[2].split(None, 1)[0]) * 1024


def limit_in_words(more_bytes: int | None, runtime: str) -> str:
    """What a worker may take, and where a person says so."""
    if more_bytes is None:
        return "its worker has no limit of its own"
    key = f"memory = … in [runtimes.{runtime}]"
    return f"its worker may take {more_bytes / 1e6:.0f} MB more than it begins with ({key})"


def with_limit_named(
    error: BaseException, limit: str, *, instrument: str | None = None, command: str | None = None
) -> BaseException:
    """`error`, or, if it is a MemoryError or was made of one, an error that names the instrument and the `limit`."""
    lacking = next((one for one in (error, error.__cause__) if isinstance(one, MemoryError)), None)
    if lacking is None:
        return error
    named = InstrumentError(f"the driver raised MemoryError: {limit}", instrument=instrument, command=command)
    named.__cause__ = lacking
    return named
