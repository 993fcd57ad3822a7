"""Live streams for another program on this machine: as many batches as it asks for, and never one that waits for it.

The lab's end is a `TapServer`, the other program's a `Tap`. Nothing here knows Flight, which is served by a program of
its own: see `duodaq.flight`.
"""

from duodaq.tap._client import Tap
from duodaq.tap._server import TapServer
from duodaq.tap._words import Opening, Told

__all__ = ["Opening", "Tap", "TapServer", "Told"]
