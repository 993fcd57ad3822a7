"""What a person says of a run: sample, operator, note, tags. Replaced whole at each edit, so never half written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from duodaq.errors import StorageFullError
from duodaq.storage.journal._layout import LABELS


class Labels(msgspec.Struct, frozen=True):
    """The labels of a run.

    Attributes:
        sample: What was measured.
        operator: Who measured.
        note: Free text.
        tags: Short words to find it by.
        edited: When that was last said, ISO 8601; "" if never.
    """

    sample: str = ""
    operator: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    edited: str = ""


def read_labels(folder: Path) -> Labels:
    """The labels of the run in `folder`; empty ones if there are none, or none that can be read."""
    try:
        return msgspec.convert(json.loads((folder / LABELS).read_bytes()), Labels, strict=False)
    except (OSError, ValueError, msgspec.ValidationError):
        return Labels()


def write_labels(
    folder: Path,
    *,
    sample: str | None = None,
    operator: str | None = None,
    note: str | None = None,
    tags: Iterable[str] | None = None,
) -> Labels:
    """Change those labels of a run that are given; the others stay.

    Raises:
        StorageError: The disk refused. The labels are as they were.
    """
    now = datetime.now(UTC).isoformat()
    given: dict[str, Any] = {"sample": sample, "operator": operator, "note": note, "edited": now}
    given["tags"] = None if tags is None else tuple(dict.fromkeys(tags))
    labels = msgspec.structs.replace(read_labels(folder), **{k: v for k, v in given.items() if v is not None})
    data = msgspec.json.format(msgspec.json.encode(labels), indent=2) + b"\n"
    try:
        replace_file(folder / LABELS, data)
    except OSError as error:
        raise StorageFullError(
            f"cannot label {folder}: {error.strerror}", left="its labels are as they were"
        ) from error
    return labels


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` where `path` is, at once and for good: readers see the old file or the new one.

    Raises:
        OSError: The disk refused. The old file is there.
    """
    file, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), 0o644)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the disk knows the names in `folder`.

    Raises:
        OSError: It refused.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(place)
    finally:
        os.close(place)
