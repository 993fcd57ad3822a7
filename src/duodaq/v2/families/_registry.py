from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.v2.families._elliptec import ElliptecFamily
from duodaq.v2.families._family import Family
from duodaq.v2.families._ophyd import OphydFamily
from duodaq.v2.families._ophyd_async import OphydAsyncFamily
from duodaq.v2.families._plain import PlainFamily
from duodaq.v2.families._pymeasure import PyMeasureFamily
from duodaq.v2.families._qcodes import QcodesFamily

FAMILIES: tuple[Family, ...] = (
    PyMeasureFamily(),
    ElliptecFamily(),
    QcodesFamily(),
    OphydFamily(),
    OphydAsyncFamily(),
    PlainFamily(),
)
"""In the order in which they are asked."""


def family_of(driver: Callable[..., Any]) -> Family:
    """The family that is at home with the class `driver`."""
    return next(family for family in FAMILIES if family.claims(driver))
