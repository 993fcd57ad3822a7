"""Sabotages: patches of product code that break one feature and raise nothing.

Each belongs to one coexistence test and names the feature at whose marked assertion that test must fail. They are
loaded by a launch option (``python -m duodaq.testing.coexistence --sabotage NAME``) before anything runs.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One patch: `apply` puts it in place, for good, in this process."""

    name: str
    test: str
    feature: str
    mode: str
    apply: Callable[[], None]


SABOTAGES: dict[str, Sabotage] = {}


def sabotage(test: str, feature: str, *, mode: str = "inline") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated patch for `test`; it must fail at the assertion marked `feature`, in `mode`."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__
        if name in SABOTAGES:
            raise ValueError(f"two sabotages are called {name}")
        SABOTAGES[name] = Sabotage(name, test, feature, mode, apply)
        return apply

    return register


def load_sabotages() -> None:
    """Register every sabotage there is; none is applied."""
    package = importlib.import_module("duodaq.testing.coexistence._sabotages")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


@contextlib.contextmanager
def patched(owner: Any, name: str, replacement: Any) -> Generator[None]:
    """`owner.name` replaced for a while."""
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
