"""Newport ESP300 and ESP301 motion controllers."""

from duodaq.drivers.esp300._codec import EspCodec, EspError
from duodaq.drivers.esp300._driver import Esp300Driver

__all__ = ["Esp300Driver", "EspCodec", "EspError"]
