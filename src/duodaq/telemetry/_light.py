"""structlog, imported without rich, which nothing of ours uses by it: with Pygments, a fifth of the time that a program
takes to start, and a lab is several programs.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast

UNUSED = ("rich", "rich.pretty", "rich.traceback")


def light_structlog() -> Any:
    """The module structlog; as it is where somebody imported it before, and with what of rich is there already."""
    modules = cast("dict[str, Any]", sys.modules)
    absent = [] if "structlog" in modules else [name for name in UNUSED if name not in modules]
    modules.update(dict.fromkeys(absent))  # so that an import fails, which structlog takes for rich being absent
    try:
        return importlib.import_module("structlog")
    finally:
        for name in absent:
            modules.pop(name, None)
