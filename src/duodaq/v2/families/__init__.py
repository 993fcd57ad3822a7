"""Kinds of foreign drivers: how to find, construct and close them, unchanged."""

from duodaq.v2.families._family import Family
from duodaq.v2.families._line import SharedLine, shared_line
from duodaq.v2.families._loader import imported_by, load_driver
from duodaq.v2.families._ophyd import OphydFamily
from duodaq.v2.families._ophyd_async import OphydAsyncFamily
from duodaq.v2.families._plain import PlainFamily
from duodaq.v2.families._pymeasure import PyMeasureFamily
from duodaq.v2.families._qcodes import QcodesFamily
from duodaq.v2.families._registry import FAMILIES, family_of
from duodaq.v2.families._serial import SharedSerial
from duodaq.v2.families._surface import Limit, Measured, Surface

__all__ = [
    "FAMILIES",
    "Family",
    "Limit",
    "Measured",
    "OphydAsyncFamily",
    "OphydFamily",
    "PlainFamily",
    "PyMeasureFamily",
    "QcodesFamily",
    "SharedLine",
    "SharedSerial",
    "Surface",
    "family_of",
    "imported_by",
    "load_driver",
    "shared_line",
]
