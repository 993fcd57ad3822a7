"""Where a running lab can be found: one socket and one lock per lab, in a directory that only this user can enter."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from duodaq import clock
from duodaq.errors import LifecycleError

LAB_PROTOCOL = 1
"""The version of what is said over a control socket."""

DIED = "died"
"""How a run ended that ended without a word: it was killed, or the program crashed."""

LOCK_TRIES = 5
LOCK_PAUSE_S = 0.05
"""Whoever looks which labs run touches a lock for a moment; that must not keep a lab from starting."""


def _directory() -> Path:
    if os.name != "posix":
        raise LifecycleError("labs meet their clients on a UNIX socket, which this system has not")
    base = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(base) / "duodaq" if base and Path(base).is_dir() else Path(f"/tmp/duodaq-{os.getuid()}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = directory.stat()
    if seen.st_uid != os.getuid() or stat.S_IMODE(seen.st_mode) & 0o077:
        raise LifecycleError(f"{directory} must belong to you alone (chmod 700)")
    return directory


def socket_path(lab: str) -> Path:
    """The control socket of the lab named `lab`: of each name another one, so ``a b`` is spelled ``a%20b``."""
    return _directory() / f"{quote(lab, safe='')}.sock"


def lab_of(socket: Path) -> str:
    """The name of the lab with that control socket."""
    return unquote(socket.stem)


def watchdog_path(socket: Path) -> Path:
    """Where the watchdog of the lab with that control socket listens."""
    return socket.with_suffix(".watchdog")


def tap_path(socket: Path) -> Path:
    """Where the lab with that control socket serves its live streams to programs on this machine."""
    return socket.with_suffix(".tap")


class LastRun(NamedTuple):
    """How the run of a lab ended that was before this one: ``died``, or what `LabLock.release` was told.

    `seen_ns` is when it was last seen alive, or ended (UTC).
    """

    pid: int
    ended: str
    seen_ns: int


class LabLock:
    """One lab of a name at a time: a lock that the system drops when its owner dies, however it dies.

    Its file says who has it, and later how that ended, until the machine is started anew.

    Args:
        lab: Its name.
        place: Its lab file: how a lab of that name ended that has another one is nothing to this one.

    Raises:
        LifecycleError: A lab of this name is running; its process id is in the message.
    """

    last: LastRun | None
    """How the last run of this lab ended; None if there was none since the machine was started."""

    def __init__(self, lab: str, place: str = "") -> None:
        self.socket, self._place = socket_path(lab), quote(place)
        self._file = os.open(self.socket.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock(self._file, LOCK_TRIES):
            owner = (_lines(self._file)[0]).strip() or "unknown"
            os.close(self._file)
            raise LifecycleError(
                f"lab {lab!r} is running already, as process {owner}", left="attach to it with duodaq.connect()"
            )
        self.last = _last_run(self._file, self._place)
        self._write(f"{os.getpid()}\n")

    def note_alive(self) -> None:
        """Its owner is alive now: should it die without a word, the next one is told until when it was."""
        if self._file >= 0:
            os.utime(self._file)

    def release(self, ended: str = "clean") -> None:
        """Let the next one have it, who is told how this one `ended`: one word."""
        if self._file >= 0:
            self.socket.unlink(missing_ok=True)
            self._write(f"{os.getpid()} {ended}\n")
            os.close(self._file)
            self._file = -1

    def _write(self, line: str) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{line}{self._place}\n".encode(), 0)


def running_labs() -> list[str]:
    """Names of this user's running labs."""
    return sorted(lab_of(path) for path in _directory().glob("*.sock") if _locked(path.with_suffix(".lock")))


def process_of(lab: str) -> int | None:
    """The process in which this user's lab of that name runs; None if it does not run."""
    lock = socket_path(lab).with_suffix(".lock")
    if not _locked(lock):
        return None
    said = lock.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return int(said) if said.isdecimal() else None


def find_lab(lab: str | None = None) -> Path:
    """The socket of the named lab, or of the only one that runs.

    Raises:
        LifecycleError: None runs, it does not run, or there are several to choose from.
    """
    running = running_labs()
    if lab is not None and Path(lab).suffix == ".sock":
        return Path(lab)
    if lab is None and len(running) == 1:
        return socket_path(running[0])
    if lab is not None and lab in running:
        return socket_path(lab)
    if not running:
        raise LifecycleError("no lab is running", left="start one with: duodaq run LAB.toml")
    names = ", ".join(running)
    raise LifecycleError(
        f"no lab {lab!r} is running" if lab else "several labs are running",
        left=f"name one of: {names}; --lab NAME on the command line, connect(NAME) in Python",
    )


def _last_run(file: int, place: str) -> LastRun | None:
    first, second = _lines(file)
    pid, _, ended = first.strip().partition(" ")
    if not pid.isdecimal() or second.strip() != place:
        return None
    return LastRun(int(pid), ended or DIED, os.fstat(file).st_mtime_ns)


def _lines(file: int) -> tuple[str, str]:
    """Who has a lock, or had it and how that ended, and the place of his lab file, quoted."""
    first, _, second = os.pread(file, 16384, 0).decode(errors="replace").partition("\n")
    return first, second


def _locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(file, 1)
    finally:
        os.close(file)


def _lock(file: int, tries: int) -> bool:
    """Take the lock on `file`, which closing it gives back; False if another has it."""
    fcntl: Any = importlib.import_module("fcntl")  # not on every system
    for attempt in range(tries):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if attempt + 1 < tries:
                clock.block(LOCK_PAUSE_S)
        else:
            return True
    return False
