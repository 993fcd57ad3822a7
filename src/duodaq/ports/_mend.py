from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from duodaq.errors import ReplyFormatError
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing, Idle, at_end

_TRIES = 3


class Mender:
    """Makes one port's questions and answers match again after an exchange that did not end with its whole reply.

    It spoils a half-written command, waits for the reply that is still owed (until it is there, or until it cannot
    come any more), then for silence, and then asks the codec's probe and wants exactly its answer. Whatever it hears is
    late and belongs to nobody.

    A half-written command is spoilt by a question of the broker's own, written right behind it: the device refuses the
    two in one. Its end alone would have it carried out as far as it came, ``1PA12.5`` as ``1PA1``. A device that had
    nothing half-written just answers, and finds no error in what it was told. Where the codec has no probe, as on a
    line whose devices have addresses, the device itself gives half a command up, and its complaint is what is owed.

    Args:
        send: Writes to the line, when it is free for that.
        codec: The port's, if it has one.
        broken: The exchange that did not end well; None if there was none.
        quiet_s: How long the line must be silent.
        longest_reply_s: How long a reply may take where no codec knows.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        codec: PortCodec | None,
        broken: Exchange | None,
        quiet_s: float,
        longest_reply_s: float = 0.0,
    ) -> None:
        self.late = 0
        self.silent = False
        self._send = send
        self._codec = codec
        self._broken = broken
        self._quiet_s = quiet_s
        self._longest_reply_s = longest_reply_s if codec is None else codec.longest_reply_s
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
        question = self._codec.probe() if self._codec is not None else None
        if broken is not None and broken.half_written and question is not None:
            await self._send(question[0])
        elif broken is not None and broken.framing is not None:
            await self._owed_reply(broken, broken.framing)
        if not await self._silence():
            return False
        return question is None or broken is None or not probing or await self._verify(*question)

    async def greet(self, query: bytes, framing: Framing, within_s: float) -> bytes | None:
        """Ask a device that may have half a command from before; its whole reply, or None if there is none."""
        await self._send(query)
        for _ in range(_TRIES):
            if not await self._silence():
                return None
            reply = await self.ask(query, framing, within_s)
            if reply is None or not await self._next(self._quiet_s):
                return reply
        return None

    async def ask(self, query: bytes, framing: Framing, within_s: float) -> bytes | None:
        """Send a query of the broker's own; its whole reply, or None if there is none."""
        framing.reset()
        await self._send(query)
        return await self._whole(framing, within_s)

    async def _owed_reply(self, broken: Exchange, framing: Framing) -> None:
        left_s = broken.started_s + self._longest_reply_s - asyncio.get_running_loop().time()
        whole = self._next(left_s) if isinstance(framing, Idle) else self._whole(framing, left_s)
        self.late += bool(await whole)

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
