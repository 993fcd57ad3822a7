from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from duodaq.errors import DataError, DeliveryError
from duodaq.link._frame import MAX_FRAME, FrameDecoder, encode
from duodaq.telemetry import get_logger

_log = get_logger("link")


class Connection(asyncio.Protocol):
    """One end of a link: whole messages in and out. A stream that makes no sense is closed.

    Args:
        heard: Called with each message.
        lost: Called once when the connection is over.
    """

    def __init__(
        self, heard: Callable[[Connection, Any], None], lost: Callable[[Connection], None], max_frame: int = MAX_FRAME
    ) -> None:
        self._heard = heard
        self._lost = lost
        self._decoder = FrameDecoder(max_frame)
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._heard(self, message)
        except (DataError, TypeError, ValueError, LookupError) as error:
            _log.warning("a link was closed: what came over it makes no sense", error=str(error))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        if not self.closed.done():
            self.closed.set_result(None)

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    @property
    def unsent(self) -> int:
        """Bytes that the other end has not taken yet."""
        return self.transport.get_write_buffer_size()

    def send(self, *message: Any) -> None:
        """Send one message.

        Raises:
            DataError: It holds something that does not travel. Nothing was sent.
            DeliveryError: The connection is over. Not done.
        """
        frame = encode(message)
        if self.transport.is_closing():
            raise DeliveryError("the link is closed", fate="not done")
        self.transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def aclose(self) -> None:
        """Close; what the other end does not take within half a second is dropped."""
        self.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.closed), 0.5)
        except TimeoutError:
            self.transport.abort()
            await self.closed
