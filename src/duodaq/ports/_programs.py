"""Which programs of this machine have a device open, as far as this user may look."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_ESTABLISHED = "01"
_INTERPRETERS = ("python", "perl", "ruby", "node", "bash", "sh")


def programs_holding(device: str) -> Iterator[tuple[int, str]]:
    """Process id and name of each other program that has `device` open."""
    target = os.path.realpath(device)
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if pid != os.getpid() and has_open(pid, target):
            yield pid, _short(command_of(pid))


def programs_behind(device: str) -> list[tuple[int, str]]:
    """Process id and name of each program that is the other end of the pty `device`: a simulator, or a virtual port."""
    target = os.path.realpath(device)
    number = target.removeprefix("/dev/pts/")
    if not number.isdecimal():
        return []
    found = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [(pid, _short(command_of(pid))) for pid in sorted(found) if _is_master_of(pid, number)]


def programs_connected(host: str, port: int) -> list[tuple[int, str]]:
    """Process id and name of each other program on this machine that has a connection to `host` at a TCP `port`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    wanted = {f"{_as_the_kernel_writes(str(one[4][0]))}:{port:04X}" for one in found}
    inodes = {row[9] for row in _tcp_rows() if row[2] in wanted and row[3] == _ESTABLISHED}
    sockets = {f"socket:[{inode}]" for inode in inodes}
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid())
    return [(pid, _short(command_of(pid))) for pid in pids if any(has_open(pid, one) for one in sockets)]


def _tcp_rows() -> Iterator[list[str]]:
    """The lines of proc(5)'s tables: among others local and remote address, state and inode."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            yield from (line.split() for line in Path(table).read_text().splitlines()[1:])


def _as_the_kernel_writes(address: str) -> str:
    """An address in hexadecimal digits, word by word in the order of this machine's bytes."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address.partition("%")[0])
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(word[:: -1 if sys.byteorder == "little" else 1].hex() for word in words).upper()


def _is_master_of(pid: int, number: str) -> bool:
    folder = Path(f"/proc/{pid}")
    try:
        masters = [fd for fd in os.listdir(folder / "fd") if os.readlink(folder / "fd" / fd).endswith("/ptmx")]
        return any(f"tty-index:\t{number}" in (folder / "fdinfo" / fd).read_text().splitlines() for fd in masters)
    except OSError:  # another user's, or gone meanwhile
        return False


def has_open(pid: int, target: str) -> bool:
    """Whether that process has the file `target` open."""
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{descriptor}") == target for descriptor in os.listdir(folder))
    except OSError:  # another user's, or gone meanwhile
        return False


def command_of(pid: int) -> list[str]:
    """The program of a process and its arguments; empty if it cannot be known."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words if word]


def strangers(pids: Iterable[int]) -> bool:
    """Whether there are several processes among `pids` of which none made the other."""
    known = set(pids)
    return sum(not (known & set(_ancestors(pid))) for pid in known) > 1


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return
        pid = int(text.rpartition(")")[2].split()[1])
        yield pid


def _short(command: list[str]) -> str:
    """A program by the name that a person knows it by: the script or module rather than its interpreter."""
    if not command:
        return "unknown"
    program = Path(command[0]).name
    name = (program.startswith(_INTERPRETERS) and _script(command[1:])) or program
    if name not in ("duodaq", "duodaq.cli"):
        return name
    after = command[[Path(word).name for word in command].index(name) + 1 :]
    return " ".join(["duodaq", *[Path(word).name for word in after if not word.startswith("-")][:2]])


def _script(arguments: list[str]) -> str:
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "-m":
            return following
        if word == "-c":
            return ""
        if not word.startswith("-"):
            return Path(word).name
    return ""
