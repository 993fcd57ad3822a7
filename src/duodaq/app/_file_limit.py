"""How many files a lab's program may have open."""

from __future__ import annotations

import contextlib
import resource

_ENOUGH = 2**20


def raise_file_limit() -> int:
    """Have the soft limit of open files at the hard one, as each recorded stream takes two or four; what it is then.

    Many systems give a program 1024 and let it ask for more. The limit of the whole program stays raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
