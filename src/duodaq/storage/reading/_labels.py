"""What a person says of a run: sample, operator, note, tags."""

from __future__ import annotations

from pathlib import Path

import msgspec

from duodaq.storage.journal._label_file import labels_of


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
        return msgspec.convert(labels_of(folder)[0], Labels, strict=False)
    except msgspec.ValidationError:
        return Labels()


def labels_are_whole(folder: Path) -> bool:
    """Whether what the run's labels say is what was said; False if the file is torn or damaged."""
    labels, whole = labels_of(folder)
    try:
        msgspec.convert(labels, Labels, strict=False)
    except msgspec.ValidationError:
        return False
    return whole
