"""Programs of the documents are begun by a process that has loaded what they load."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from duodaq.testing import _nursery


@pytest.fixture(scope="session")
def begin() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """As `subprocess.Popen`, of a command of duodaq's or a script."""
    if not _nursery.at_hand():
        yield subprocess.Popen
        return
    one = _nursery.Nursery(_nursery.COMMANDS)
    yield one.popen
    one.close()
