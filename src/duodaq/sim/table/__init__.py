"""One optical table: laser, shutter, a Gaussian beam, a knife edge on a stage, a power meter, a photodiode, a camera.

It is a process of its own (``python -m duodaq.sim.table --seed N [--socket PATH]``); every simulator is its client
through `TableClient`, so that all see one beam from whichever process they are in. `LocalTable` keeps the same
promise within one process. Its laser is on and its shutter closed when it starts.
"""

from duodaq.sim.table._client import TableClient
from duodaq.sim.table._motion import Piece, Profile, crossing_s, jog, move_to, rest, stop
from duodaq.sim.table._optics import PIXEL_MM
from duodaq.sim.table._service import TableService
from duodaq.sim.table._table import KNIFE_AXIS, LocalTable, Scene, Table, TableState, Truth, expose

__all__ = [
    "KNIFE_AXIS",
    "PIXEL_MM",
    "LocalTable",
    "Piece",
    "Profile",
    "Scene",
    "Table",
    "TableClient",
    "TableService",
    "TableState",
    "Truth",
    "crossing_s",
    "expose",
    "jog",
    "move_to",
    "rest",
    "stop",
]
