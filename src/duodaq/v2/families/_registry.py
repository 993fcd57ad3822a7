from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.v2.families._elliptec import ElliptecFamily
from duodaq.v2.families._family import Family
from duodaq.v2.families._plain import PlainFamily
from duodaq.v2.families._pymeasure import PyMeasureFamily

FAMILIES: tuple[Family, ...] = (PyMeasureFamily(), ElliptecFamily(), PlainFamily())
"""In the order in which they are asked."""


def family_of(driver: Callable[..., Any]) -> Family:
    """The family that is at home with the class `driver`."""
    return next(family for family in FAMILIES if family.claims(driver))
