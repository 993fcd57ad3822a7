"""What of pyarrow is not known to its types, in one place."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa

compute: Any = importlib.import_module("pyarrow.compute")
Table: Any = pa.Table


def parquet() -> Any:
    """pyarrow.parquet, loaded when it is first needed."""
    return importlib.import_module("pyarrow.parquet")


def csv() -> Any:
    """pyarrow.csv, likewise."""
    return importlib.import_module("pyarrow.csv")
