from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from duodaq.link import Message, Pipe
from duodaq.ports._broker import Broker
from duodaq.ports._port_desk import FramingOf, PortDesk
from duodaq.ports._sentences import OfUser

_decode = msgspec.msgpack.Decoder(OfUser).decode


class DeskLine:
    """The broker's end of the line that the threads of a worker have for its ports; see ThreadLines.

    What they ask for may do all that the worker may. On the broker's loop.

    Args:
        broker: The lab's.
        end: The socket, which this owns from now on.
        encode: A sentence as bytes.
        own: As for a PortDesk.
        framing_of: As for a PortDesk.
        lost: Called once when the line is over, not by `close`: with why, or "" when the worker has closed it.
    """

    def __init__(
        self,
        broker: Broker,
        end: socket.socket,
        encode: Callable[[Message], bytes],
        own: Callable[[Coroutine[Any, Any, None]], Any],
        framing_of: FramingOf,
        lost: Callable[[str], None],
    ) -> None:
        self._pipe = Pipe(end, encode, _decode, self._heard, lost)
        self._desk = PortDesk(broker, self._pipe.send, own, framing_of)

    @property
    def idle(self) -> bool:
        """Whether those threads have nothing at any port."""
        return self._desk.idle

    def open(self) -> None:
        """Hear from now on, on the running loop."""
        self._pipe.open()

    def close(self) -> None:
        """Give back and cut all that they had, and hear nothing more. Idempotent."""
        self._pipe.close()
        self._desk.close()

    def _heard(self, request: OfUser) -> None:
        self._desk.heard(request)
