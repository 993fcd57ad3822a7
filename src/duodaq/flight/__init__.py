"""A lab's streams and its recorded runs for other programs, over Arrow Flight.

`FlightService` is served by a program of its own (``duodaq serve --flight``): a reader that stops in the middle of a
message blocks a thread of gRPC until it goes on or dies, and no call ends that, but the end of the program does.
"""

from duodaq.flight._client import FlightLab, LiveBatch, LiveStream, connect
from duodaq.flight._service import FlightService, Serving
from duodaq.flight._words import Lost

__all__ = ["FlightLab", "FlightService", "LiveBatch", "LiveStream", "Lost", "Serving", "connect"]
