"""A limit on what a worker may take, so that a memory bomb ends in it and not in the machine."""

from __future__ import annotations

import sys
from pathlib import Path

from duodaq.errors import LifecycleError


def limit_memory(more_bytes: int) -> None:
    """Let this process take `more_bytes` more than it has now; what asks for more gets MemoryError, or dies of it.

    It counts private writable memory (heap, anonymous maps, stacks of threads): neither what libraries map to read,
    nor a shared ring. (RLIMIT_AS would count these, and the address space that allocators reserve and never touch.)

    Raises:
        LifecycleError: There is no such limit here, or the system refused. Nothing is limited.
    """
    if sys.platform != "linux":
        raise LifecycleError("a worker's memory can be limited on Linux only")
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    has_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    limit = has_kb * 1024 + more_bytes
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (ValueError, OSError) as exc:
        raise LifecycleError(f"the memory limit was refused: {exc}") from exc
