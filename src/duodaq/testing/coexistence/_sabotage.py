"""Sabotages: patches of product code that break one feature and raise nothing.

Each belongs to one coexistence test and names the feature at whose marked assertion that test must fail. They are
loaded by a launch option (``python -m duodaq.testing.coexistence --sabotage NAME``) before anything runs, into every
process: the option is left in the environment, where the server that makes worker processes finds it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One patch: `apply` puts it in place, for good, in this process. It is proven to bite in each of `modes`."""

    name: str
    test: str
    feature: str
    modes: tuple[str, ...]
    apply: Callable[[], None]


SABOTAGES: dict[str, Sabotage] = {}


EVERYWHERE = ("inline", "thread", "process")
ON_ONE_LOOP = ("inline",)
"""Where both sides share one event loop."""
SHARED = ("inline", "thread")
"""Where both sides share one process; what is patched has no counterpart beyond it."""
APART = ("process",)
"""Where what is patched belongs to worker processes only."""
FROM_THREADS = ("thread", "process")
"""Where it takes workers of their own to show."""


def sabotage(
    test: str, feature: str, *, modes: tuple[str, ...] = EVERYWHERE
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated patch for `test`; it must fail at the assertion marked `feature`, in each of `modes`."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__
        if name in SABOTAGES:
            raise ValueError(f"two sabotages are called {name}")
        SABOTAGES[name] = Sabotage(name, test, feature, modes, apply)
        return apply

    return register


def load_sabotages() -> None:
    """Register every sabotage there is; none is applied."""
    package = importlib.import_module("duodaq.testing.coexistence._sabotages")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


PRELOAD_VARIABLE = "DUODAQ_PRELOAD"
"""``"module:function"``, called once in the server that makes worker processes, after its imports."""

SABOTAGE_VARIABLE = "DUODAQ_SABOTAGE"
"""The sabotage that `apply_from_environment` applies."""


def apply_from_environment() -> None:
    """Apply the sabotage that the environment names to this process; without one, nothing happens.

    Raises:
        LookupError: There is no such sabotage. Nothing was patched.
    """
    name = os.environ.get(SABOTAGE_VARIABLE, "")
    if not name:
        return
    load_sabotages()
    if name not in SABOTAGES:
        raise LookupError(f"{SABOTAGE_VARIABLE}={name}: there is no such sabotage")
    SABOTAGES[name].apply()


def sabotage_everything(name: str) -> None:
    """Apply a sabotage here, and have every worker process that is made from now on apply it.

    To be called before any worker process is made: what exists already is not sabotaged.
    """
    os.environ[PRELOAD_VARIABLE] = f"{apply_from_environment.__module__}:{apply_from_environment.__name__}"
    os.environ[SABOTAGE_VARIABLE] = name
    apply_from_environment()


@contextlib.contextmanager
def patched(owner: Any, name: str, replacement: Any) -> Generator[None]:
    """`owner.name` replaced for a while."""
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
