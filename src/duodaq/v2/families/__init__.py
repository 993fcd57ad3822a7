"""Kinds of foreign drivers: how to find, construct, enumerate and close them, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.v2.families._family import Family
from duodaq.v2.families._line import SharedLine, shared_line
from duodaq.v2.families._loader import load_driver
from duodaq.v2.families._plain import PlainFamily
from duodaq.v2.families._pymeasure import PyMeasureFamily
from duodaq.v2.families._serial import SharedSerial

FAMILIES: tuple[Family, ...] = (PyMeasureFamily(), PlainFamily())
"""In the order in which they are asked."""


def family_of(driver: Callable[..., Any]) -> Family:
    """The family that is at home with the class `driver`."""
    return next(family for family in FAMILIES if family.claims(driver))


__all__ = [
    "FAMILIES",
    "Family",
    "PlainFamily",
    "PyMeasureFamily",
    "SharedLine",
    "SharedSerial",
    "family_of",
    "load_driver",
    "shared_line",
]
