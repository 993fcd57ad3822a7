from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

from duodaq.errors import PortBusyError

_OURS: set[Path] = set()
"""The lock files that this process has. Locks of this kind keep out other processes only; no child inherits one."""


class VirtualLink:
    """The link under which programs find a virtual port's pty; one lab at a time has it.

    Beside it lies a file that is locked as long as the lab lives, ``.stage.lock`` for ``stage``. A link whose lab was
    killed leads nowhere, or, which is worse, to somebody else's terminal by now; its lock is free, so the next lab
    takes it over, and the watchdog of the dead one takes it away. Nobody else may: a lab that lives keeps its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file = path.with_name(f".{path.name}.lock").absolute()
        self._lock: int | None = None

    def take(self) -> None:
        """Make it ours. Once it is, it stays so until `release`.

        Raises:
            PortBusyError: Another lab has it, and lives.
            OSError: There is something else of that name, or the folder cannot be written.
        """
        if self._lock is not None:
            return
        if self.path.is_symlink():
            if not os.readlink(self.path).startswith("/dev/pts/"):
                raise FileExistsError(f"it is a link to {os.readlink(self.path)}, which is none of ours")
        elif self.path.exists():
            raise FileExistsError("there is a file of that name")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()

    def _locked(self) -> int:
        fcntl: Any = importlib.import_module("fcntl")
        if self._lock_file in _OURS:
            raise self._busy("this program")
        while True:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file(descriptor, self._lock_file):
                    _OURS.add(self._lock_file)
                    return descriptor
            except (BlockingIOError, PermissionError):
                os.close(descriptor)
                raise self._busy("another program") from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever had it took it away meanwhile

    def _busy(self, whose: str) -> PortBusyError:
        what = f"its virtual port {self.path} is served by a lab of {whose} already"
        return PortBusyError(what, left="end that lab, or choose another place")

    def point_to(self, device: str) -> None:
        """Have it lead to `device`, in one step, so that it leads somewhere at any time."""
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(device)
        fresh.replace(self.path)

    def release(self, device: str | None) -> None:
        """Take it away, if it leads to `device`, and let others have it."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            if device is not None and self.path.is_symlink() and os.readlink(self.path) == device:
                self.path.unlink()
        with contextlib.suppress(OSError):
            self._lock_file.unlink()
        _OURS.discard(self._lock_file)
        os.close(self._lock)
        self._lock = None


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
