"""Instruments on a network as VISA knows them: HiSLIP and VXI-11, with END, device clear, serial poll and locks."""

from duodaq.sim.lan._hislip import HislipEndpoint
from duodaq.sim.lan._vxi11 import Vxi11Endpoint

__all__ = ["HislipEndpoint", "Vxi11Endpoint"]
