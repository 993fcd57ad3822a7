from __future__ import annotations

import contextlib
import errno
import importlib
import os
from pathlib import Path
from typing import Any

_OURS: set[Path] = set()
"""The lock files that this process has: locks of this kind keep out other processes only, and no child inherits one."""


class PtyLink:
    """The stable name of a simulator's pty; one simulator at a time has it.

    Beside it lies a file that is locked as long as it is served, ``.stage.lock`` for ``stage``, the same as beside a
    lab's virtual port. Who was killed leaves a link that leads nowhere and a lock that is free: the next takes both.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_file = path.with_name(f".{path.name}.lock").absolute()
        self._lock = -1
        self._device = ""

    def point_to(self, device: str) -> None:
        """Have it lead to `device`, in one step.

        Raises:
            OSError: Somebody who lives serves it, there is something else of that name, or the folder cannot be
                written. It leads where it led.
        """
        if self._path.exists() and not self._path.is_symlink():
            raise FileExistsError(errno.EEXIST, "there is something that is no symlink", str(self._path))
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(device)
            fresh.replace(self._path)
        except OSError as exc:
            self._unlock()
            said = exc.strerror if exc.errno == errno.EBUSY else f"cannot make this link (to {device}): {exc.strerror}"
            raise OSError(exc.errno, said, str(self._path)) from exc
        self._device = device

    def remove(self) -> None:
        """Take it away, if it still leads where this one had it lead, and let others have it."""
        with contextlib.suppress(OSError):
            if self._path.is_symlink() and os.readlink(self._path) == self._device:
                self._path.unlink()
        self._unlock()

    def _locked(self) -> int:
        fcntl: Any = importlib.import_module("fcntl")
        while self._lock_file not in _OURS:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                os.close(descriptor)
                if not isinstance(exc, BlockingIOError | PermissionError):
                    raise
                break
            if _is_file(descriptor, self._lock_file):
                _OURS.add(self._lock_file)
                return descriptor
            os.close(descriptor)  # whoever had it took it away meanwhile
        raise OSError(errno.EBUSY, "another one serves it already: end that one, or choose another name")

    def _unlock(self) -> None:
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            self._lock_file.unlink()
        _OURS.discard(self._lock_file)
        os.close(self._lock)
        self._lock = -1


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
