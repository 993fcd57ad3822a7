"""Newport 1830-C optical power meter."""

from duodaq.drivers.newport1830c._codec import MeterStatus, Newport1830cCodec
from duodaq.drivers.newport1830c._driver import Newport1830CDriver

__all__ = ["MeterStatus", "Newport1830CDriver", "Newport1830cCodec"]
