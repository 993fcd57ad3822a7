"""What the runtime of this process was made from, for drivers of the tests that look at it from within.

A V2 driver is a lab's own class and knows nothing of the lab; that of a test has to see the parameter table as its own
runtime does. The factories here make the real runtimes and remember, in the process where they are called, with what.
"""

from __future__ import annotations

from duodaq.dual import Factories, RuntimeParts
from duodaq.model import Runtime

_PARTS: dict[str, RuntimeParts] = {}
_REAL = Factories()


def parts_of(runtime: str) -> RuntimeParts:
    """The parts of the runtime that was made last in this process.

    Raises:
        LookupError: None was made here by the factories of this module.
    """
    if runtime not in _PARTS:
        raise LookupError(f"no runtime {runtime} was made in this process by the factories of the test kit")
    return _PARTS[runtime]


def make_v2(parts: RuntimeParts) -> Runtime:
    """The real V2, its parts remembered."""
    _PARTS["v2"] = parts
    return _REAL.v2(parts)


def make_v4(parts: RuntimeParts) -> Runtime:
    """The real V4, its parts remembered."""
    _PARTS["v4"] = parts
    return _REAL.v4(parts)


def forget_parts() -> None:
    """Forget them all: a test is over."""
    _PARTS.clear()
