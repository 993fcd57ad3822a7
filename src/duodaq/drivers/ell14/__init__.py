"""Thorlabs Elliptec rotators, several on one line."""

from duodaq.drivers.ell14._codec import EllCodec
from duodaq.drivers.ell14._driver import ElliptecDriver
from duodaq.drivers.ell14._frames import EllFrame, EllFraming, EllStatus, parse_identity, parse_position, parse_status

__all__ = [
    "EllCodec",
    "EllFrame",
    "EllFraming",
    "EllStatus",
    "ElliptecDriver",
    "parse_identity",
    "parse_position",
    "parse_status",
]
