"""The file `labels.json`: plain JSON with a checksum in it, so that a spoiled one is never taken for what was said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from duodaq.storage.journal._layout import LABELS, SEED, crc32c

_CRC = "crc"


def pack_labels(labels: Mapping[str, Any]) -> bytes:
    """The file."""
    return msgspec.json.format(msgspec.json.encode({**labels, _CRC: _sum(labels)}), indent=2) + b"\n"


def labels_of(folder: Path) -> tuple[dict[str, Any], bool]:
    """What the file in `folder` says as far as it can be read, and whether that is what was said.

    None at all says nothing, and is whole; so is one of before there was a checksum, if it can be read.
    """
    try:
        found: Any = json.loads((folder / LABELS).read_bytes())
    except FileNotFoundError:
        return {}, True
    except (OSError, ValueError):
        return {}, False
    if not isinstance(found, dict):
        return {}, False
    labels = cast("dict[str, Any]", found)
    told = labels.pop(_CRC, None)
    return labels, told is None or told == _sum(labels)


def _sum(labels: Mapping[str, Any]) -> str:
    return f"{crc32c(SEED, msgspec.json.encode(labels, order='sorted')):08x}"
