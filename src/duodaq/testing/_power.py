"""A disk that remembers all that was done to it, and what a loss of power at any moment could have left of that.

The model: what was synced is there. Of every write, change of length and change of a name since, each may have arrived
or not, in any order; of a write, any of its sectors, as written or (where nothing was before) as zeros. Bytes that a
write leaves as they were stay as they are, in the sense of SQLite's "powersafe overwrite".
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from duodaq.storage.journal import Disk

SECTOR = 512


class Step(NamedTuple):
    """One thing that was done; `what` it was done to is a file's number, or a directory's path."""

    kind: str
    what: Any
    name: str = ""
    file: int = 0
    offset: int = 0
    data: bytes = b""


class TracedDisk(Disk):
    """Does what it is asked, and keeps it in `steps`. Nothing is waited for."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._files: dict[int, int] = {}
        self._names: dict[tuple[str, str], int] = {}
        self._directories: dict[int, str] = {}
        self._count = 0

    def make_directory(self, path: str) -> None:
        """As any other."""
        place, missing = Path(path), list[Path]()
        while not place.is_dir():
            missing.append(place)
            place = place.parent
        self.steps += [Step("mkdir", str(one.parent), str(one)) for one in reversed(missing)]
        super().make_directory(path)

    def open_directory(self, path: str) -> int:
        """As any other."""
        directory = super().open_directory(path)
        self._directories[directory] = path
        return directory

    def create(self, directory: int, name: str, *, direct: bool = False) -> int:
        """As any other."""
        file = super().create(directory, name, direct=direct)
        self._count += 1
        place = self._directories[directory]
        self._files[file] = self._names[place, name] = self._count
        self.steps.append(Step("create", place, name, self._count))
        return file

    def write(self, file: int, parts: Sequence[Any], offset: int) -> None:
        """As any other."""
        data = b"".join(memoryview(part).cast("B") for part in parts)
        super().write(file, parts, offset)
        self.steps.append(Step("write", self._files[file], offset=offset, data=data))

    def allocate(self, file: int, offset: int, length: int) -> None:
        """As any other."""
        super().allocate(file, offset, length)
        self.steps.append(Step("allocate", self._files[file], offset=offset + length))

    def truncate(self, file: int, length: int) -> None:
        """As any other."""
        super().truncate(file, length)
        self.steps.append(Step("truncate", self._files[file], offset=length))

    def sync(self, file: int) -> None:
        """At once."""
        self.steps.append(Step("sync", self._files[file]))

    def sync_directory(self, directory: int) -> None:
        """At once."""
        self.steps.append(Step("syncdir", self._directories[directory]))

    def rename(self, directory: int, name: str, to: str) -> None:
        """As any other."""
        super().rename(directory, name, to)
        place = self._directories[directory]
        file = self._names[place, to] = self._names.pop((place, name))
        self.steps.append(Step("rename", place, f"{name}\0{to}", file))

    def remove(self, directory: int, name: str) -> None:
        """As any other."""
        super().remove(directory, name)
        self.steps.append(Step("remove", self._directories[directory], name))


def after_power_loss(steps: Sequence[Step], root: Path, to: Path, luck: random.Random) -> bool:
    """Lay into `to` what a loss of power behind `steps` could have left of the directory `root`.

    Returns:
        Whether the directory itself is there.
    """
    names = _names_left(steps, str(root), luck)
    if names is None:
        return False
    to.mkdir()
    for name, file in names.items():
        (to / name).write_bytes(_bytes_left([step for step in steps if step.what == file], luck))
    return True


def _names_left(steps: Sequence[Step], root: str, luck: random.Random) -> dict[str, int] | None:
    """The files of a directory by name; None if not even its own name was synced and chance is against it."""
    there = _synced(steps, "mkdir", os.path.dirname(root), luck)
    names: dict[str, int] = {}
    last = max((i for i, step in enumerate(steps) if (step.kind, step.what) == ("syncdir", root)), default=-1)
    for i, step in enumerate(steps):
        if step.what != root or (i > last and luck.random() < 0.5):
            continue
        match step.kind:
            case "create":
                names[step.name] = step.file
            case "rename":
                before, _, after = step.name.partition("\0")
                names.pop(before, None)
                names[after] = step.file
            case "remove":
                names.pop(step.name, None)
            case _:
                continue
    return names if there else None


def _synced(steps: Sequence[Step], kind: str, what: str, luck: random.Random) -> bool:
    done = [i for i, step in enumerate(steps) if (step.kind, step.what) == (kind, what)]
    synced = [i for i, step in enumerate(steps) if (step.kind, step.what) == ("syncdir", what)]
    return bool(done) and (bool(synced and synced[-1] > done[-1]) or luck.random() < 0.5)


def _bytes_left(steps: Sequence[Step], luck: random.Random) -> bytes:
    last = max((i for i, step in enumerate(steps) if step.kind == "sync"), default=-1)
    content = bytearray()
    for step in steps[: last + 1]:
        _apply(content, step)
    safe = len(content)
    for step in steps[last + 1 :]:
        fate = luck.choice(("whole", "dropped", "torn", "zeroed"))
        if step.kind != "write":
            if fate in ("whole", "torn"):
                _apply(content, step)
                safe = min(safe, len(content))
            continue
        if fate == "dropped":
            continue
        for start in range(0, len(step.data), SECTOR):
            kept = fate == "whole" or luck.random() < 0.5
            part = step.data[start : start + SECTOR]
            place = step.offset + start
            if kept:
                _apply(content, step._replace(offset=place, data=part))
            elif fate == "zeroed" and place >= safe:
                _apply(content, step._replace(offset=place, data=bytes(len(part))))
    return bytes(content)


def _apply(content: bytearray, step: Step) -> None:
    match step.kind:
        case "write":
            content.extend(bytes(max(0, step.offset + len(step.data) - len(content))))
            content[step.offset : step.offset + len(step.data)] = step.data
        case "truncate":
            del content[step.offset :]
            content.extend(bytes(step.offset - len(content)))
        case "allocate":
            content.extend(bytes(max(0, step.offset - len(content))))
        case _:
            return
