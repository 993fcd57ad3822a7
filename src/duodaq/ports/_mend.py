from __future__ import annotations

import asyncio
from collections.abc import Callable

from duodaq.errors import ReplyFormatError
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing, Idle, at_end

_TRIES = 3


class Mender:
    """Makes one port's questions and answers match again after an exchange that did not end with its whole reply.

    It finishes a half-written command with the codec's abort bytes, waits for the reply that is still owed (until it
    is there, or until the codec promises that it cannot come any more), then for silence, and then asks the codec's
    probe and wants exactly its answer. Whatever it hears is late and belongs to nobody.
    """

    def __init__(
        self, send: Callable[[bytes], None], codec: PortCodec | None, broken: Exchange | None, quiet_s: float
    ) -> None:
        self.late = 0
        self.silent = False
        self._send = send
        self._codec = codec
        self._broken = broken
        self._quiet_s = quiet_s
        self._heard = bytearray()
        self._news = asyncio.Event()
        self._ended = False

    def feed(self, data: bytes, ends: bool = False) -> None:
        """Take what the line says meanwhile; `ends`: it marked the end of a message behind that."""
        self._heard += data
        self._ended = ends
        self._news.set()

    async def run(self, probing: bool = True) -> bool:
        """Mend the line; False if it never fell silent or answered the probe wrongly each time."""
        broken = self._broken
        if broken is not None and broken.half_written and self._codec is not None:
            self._send(self._codec.abort_bytes)
        if broken is not None and broken.framing is not None and broken.sent == len(broken.request):
            await self._owed_reply(broken, broken.framing)
        if not await self._silence():
            return False
        probe = self._codec.probe() if self._codec is not None and broken is not None and probing else None
        return probe is None or await self._verify(*probe)

    async def ask(self, query: bytes, framing: Framing, within_s: float) -> bytes | None:
        """Send a query of the broker's own; its whole reply, or None if there is none."""
        framing.reset()
        self._send(query)
        return await self._whole(framing, within_s)

    async def _owed_reply(self, broken: Exchange, framing: Framing) -> None:
        if self._codec is None or isinstance(framing, Idle):
            return
        owed_until_s = broken.started_s + self._codec.longest_reply_s
        if await self._whole(framing, owed_until_s - asyncio.get_running_loop().time()) is not None:
            self.late += 1

    async def _whole(self, framing: Framing, within_s: float) -> bytes | None:
        """The next whole reply by `framing` within `within_s`; None if there is none or it is malformed."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            data = await self._next(deadline - asyncio.get_running_loop().time())
            if not data:
                return None
            try:
                reply = framing.feed(data)
                if reply is None and self._ended:
                    reply = at_end(framing)
            except ReplyFormatError:
                return None
            if reply is not None:
                self._heard += framing.rest
                return reply

    async def _next(self, within_s: float) -> bytes:
        """What has been heard and not looked at yet; waits for some, and returns nothing when `within_s` is over."""
        if not self._heard and within_s > 0:
            self._news.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._news.wait()
            except TimeoutError:
                return b""
        data = bytes(self._heard)
        self._heard.clear()
        return data

    async def _silence(self) -> bool:
        """Wait until nothing comes for `quiet_s`; False if the line talks without end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 1.0 + 10 * self._quiet_s
        while await self._next(self._quiet_s):
            if loop.time() > deadline:
                return False
        return True

    async def _verify(self, query: bytes, framing: Framing) -> bool:
        longest_s = self._codec.longest_reply_s if self._codec is not None else 0.0
        for _ in range(_TRIES):
            reply = await self.ask(query, framing, longest_s)
            surplus = await self._next(self._quiet_s)
            if reply is None and not surplus:
                self.silent = True  # for longer than any reply takes: nothing can be under way
                return True
            if reply is not None and not surplus:
                return True
            if not await self._silence():
                return False
        return False
