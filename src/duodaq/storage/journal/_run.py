"""What a run is: its identity, its number, and where it comes from."""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec

from duodaq import clock
from duodaq.storage.journal._layout import FORMAT, READABLE

Level = Literal["durable", "kernel"]

_COUNTER = ".run-number"
_PACKAGES = ("duodaq", "numpy", "pyarrow", "bluesky", "pymeasure", "qcodes", "pyvisa", "pyserial")
_GIT_S = 2.0


class RunPage(msgspec.Struct, frozen=True):
    """What `run.json` says.

    Attributes:
        uid: UUIDv7.
        number: Counts the runs of one directory, from 1; 0 if that could not be counted.
        start_ns: UTC nanoseconds.
        level: What an acknowledgement means: ``durable`` or ``kernel``.
        versions: Of Python and of packages, by name.
        host: The machine's name and system.
        git: Commit and whether there are changes, of the folder of the lab file; None without git.
        provenance: What whoever started the run says of it: plain values.
    """

    uid: uuid.UUID
    number: int
    start_ns: int
    level: Level = "durable"
    versions: dict[str, str] = {}
    host: str = ""
    git: dict[str, Any] | None = None
    provenance: dict[str, Any] = {}

    @classmethod
    def of_now(
        cls, path: str | Path, *, level: Level, provenance: Mapping[str, Any], code: str | Path | None = None
    ) -> RunPage:
        """The page of a run that begins now in the directory `path`; blocks while it asks git about `code`."""
        return cls(
            uid=uuid7(),
            number=_next_number(Path(path).absolute().parent),
            start_ns=clock.utc_ns(),
            level=level,
            versions=_versions(),
            host=f"{platform.node()} {platform.system()} {platform.release()}",
            git=None if code is None else git_facts(code),
            provenance=dict(provenance),
        )

    def facts(self) -> dict[str, Any]:
        """The page as plain values."""
        told = msgspec.to_builtins(self, enc_hook=str, builtin_types=())
        return {"format": FORMAT, "start": iso(self.start_ns), **told}

    def encode(self) -> bytes:
        """The file."""
        return msgspec.json.format(msgspec.json.encode(self.facts(), enc_hook=str), indent=2) + b"\n"

    def start_doc(self) -> dict[str, Any]:
        """The document of the start event: Bluesky's RunStart, and all of the page."""
        return {"time": self.start_ns / 1e9, "scan_id": self.number, **self.facts()}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> RunPage | None:
        """The page in what `run.json` or a start event holds; None if it is none of this format."""
        if facts.get("format") not in READABLE:
            return None
        try:
            return msgspec.convert(facts, cls)
        except msgspec.ValidationError:
            return None


def uuid7() -> uuid.UUID:
    """A UUID of version 7: milliseconds since 1970, then chance; ids that are made later sort later."""
    ms = clock.utc_ns() // 1_000_000
    value = (ms & (2**48 - 1)) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return uuid.UUID(int=value)


def iso(t_ns: int) -> str:
    """UTC nanoseconds as ISO 8601 with offset."""
    return datetime.fromtimestamp(t_ns / 1e9, UTC).isoformat()


def git_facts(place: str | Path) -> dict[str, Any] | None:
    """The commit of the repository that `place` lies in, and whether anything in it was changed; None without one."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(place), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_S).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _next_number(parent: Path) -> int:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        file = os.open(parent / _COUNTER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return 0  # the run itself will say what is wrong with the place
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = os.pread(file, 20, 0)
        number = (int(told) if told.strip().isdigit() else 0) + 1
        os.pwrite(file, b"%-19d\n" % number, 0)
    except OSError:
        return 0
    finally:
        os.close(file)
    return number


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
