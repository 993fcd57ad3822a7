from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class OpenWatch:
    """Tells that a file has been opened, by inotify: `descriptor` becomes readable. Linux only.

    Raises:
        OSError: The system has no inotify, or no more watches for this user.
    """

    def __init__(self, path: str) -> None:
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._checked(self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), _IN_OPEN))
        except OSError:
            self.close()
            raise

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        return result

    def opened(self) -> int:
        """How often it has been opened since this was asked last, or less often: opens at once count as one."""
        try:
            events = os.read(self.descriptor, 4096)
        except BlockingIOError:
            return 0
        count = at = 0
        while at < len(events):
            _, mask, _, length = _EVENT.unpack_from(events, at)
            count += bool(mask & _IN_OPEN)
            at += _EVENT.size + length
        return count

    def close(self) -> None:
        """Watch no more. Once."""
        os.close(self.descriptor)
