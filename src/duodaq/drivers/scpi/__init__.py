"""Any instrument that speaks SCPI over IEEE-488.2."""

from duodaq.drivers.scpi._codec import EventStatus, ScpiCodec, ScpiError, StatusByte
from duodaq.drivers.scpi._driver import ScpiDriver

__all__ = ["EventStatus", "ScpiCodec", "ScpiDriver", "ScpiError", "StatusByte"]
