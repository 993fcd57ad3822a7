"""Packages whose names are resolved when they are first used, so that a small program loads little."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_of(package: dict[str, Any], homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package.

    Args:
        package: Its ``globals()``; a name is kept there from its first use on.
        homes: Of each name the module that has it, or ``module:other`` where it has another name there.
    """

    def resolved(name: str) -> Any:
        home, _, original = homes.get(name, "").partition(":")
        if not home:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = package[name] = getattr(importlib.import_module(home), original or name)
        return value

    def known() -> list[str]:
        return sorted({*package, *package["__all__"]})

    return resolved, known
