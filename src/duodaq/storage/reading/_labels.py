"""What a person says of a run: sample, operator, note, tags."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

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
