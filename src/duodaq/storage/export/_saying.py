"""What a form has no way to say: an error that names the stream and the column, whatever library has refused."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pyarrow as pa

from duodaq.errors import DuodaqError, StorageError
from duodaq.storage.reading import Stream
from duodaq.storage.reading._arrow import Table

_LEFT = "the journal is untouched"


@contextlib.contextmanager
def saying(form: str, stream: str, column: Callable[[], str | None] = lambda: None) -> Generator[None]:
    """What a library refuses inside becomes a sentence; what is one already, or the disk's, passes.

    Args:
        form: What is written.
        stream: Of which stream.
        column: Which column it is then, or None if it is none of them.

    Raises:
        StorageError: It cannot be written in this form.
    """
    try:
        yield
    except (DuodaqError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        found = column()
        what = stream if found is None else f"column {found!r} of {stream}"
        raise StorageError(f"{what} cannot be written as {form}: {error}", left=_LEFT) from error


def refuse_doubled_names(stream: Stream) -> None:
    """Return if each column of a stream has a name of its own.

    Raises:
        StorageError: Two have the same one, which only the journal can tell apart.
    """
    for part in stream.parts:
        doubled = [name for name, count in Counter(part.schema.names).items() if count > 1]
        if doubled:
            names = " and ".join(map(repr, doubled))
            raise StorageError(f"{stream.name} has several columns called {names}", left=_LEFT)


def refused_column(table: pa.Table, write: Callable[[pa.Table, Any], Any]) -> str | None:
    """The first column that `write` cannot write alone either, if it is one."""
    for field, column in zip(table.schema, table.columns, strict=True):
        one = Table.from_arrays([column], schema=pa.schema([field]))
        try:
            write(one, io.BytesIO())
        except Exception:  # noqa: BLE001 - whichever it is: the one that is told is the first one
            return field.name
    return None
