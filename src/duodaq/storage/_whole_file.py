"""A file whose writes are whole."""

from __future__ import annotations

import io
from typing import Any


class WholeFile(io.FileIO):
    """An unbuffered file whose `write` writes everything or raises."""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += super().write(view[written:]) or 0
        return written
