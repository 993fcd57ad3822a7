"""One module of sabotages for each module of tests; importing them registers them and changes nothing yet."""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Register every sabotage there is."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


__all__ = ["load_all"]
