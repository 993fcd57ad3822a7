from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from duodaq.errors import ReplyFormatError
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing, Idle, at_end

_TRIES = 3
_SLOWER = 3.0
"""So many times as long as an answer took, the next one is waited for."""


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
        broken, asked_s = self._broken, None
        question = self._codec.probe() if self._codec is not None else None
        if broken is not None and broken.half_written and question is not None:
            asked_s = _now_s()
            await self._send(question[0])
        elif broken is not None and broken.framing is not None:
            await self._owed_reply(broken, broken.framing)
        heard = await self._hear_out()
        if heard is None:
            return False
        if question is None or broken is None or not probing:
            return True
        in_step, reply = await self._in_step(*question, self._longest_reply_s, asked_s, heard)
        if in_step and reply is None:
            self.silent = True  # for longer than any reply takes: nothing can be under way
        return in_step

    async def greet(self, query: bytes, framing: Framing, within_s: float) -> bytes | None:
        """Ask a device that may have half a command from before; its whole reply, or None if there is none."""
        asked_s = _now_s()
        await self._send(query)
        heard = await self._hear_out()
        if heard is None:
            return None
        return (await self._in_step(query, framing, within_s, asked_s, heard))[1]

    async def ask(self, query: bytes, framing: Framing, within_s: float) -> bytes | None:
        """Send a query of the broker's own; its whole reply, or None if there is none."""
        framing.reset()
        await self._send(query)
        return await self._whole(framing, within_s)

    async def _owed_reply(self, broken: Exchange, framing: Framing) -> None:
        left_s = broken.started_s + self._longest_reply_s - _now_s()
        whole = self._next(left_s) if isinstance(framing, Idle) else self._whole(framing, left_s)
        self.late += bool(await whole)

    async def _whole(self, framing: Framing, within_s: float) -> bytes | None:
        """The next whole reply by `framing` within `within_s`; None if there is none or it is malformed."""
        deadline = _now_s() + within_s
        while True:
            data = await self._next(deadline - _now_s())
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

    async def _hear_out(self) -> bytes | None:
        """What comes until there is nothing for `quiet_s`; None if the line talks without end."""
        deadline, heard = _now_s() + 1.0 + 10 * self._quiet_s, b""
        while data := await self._next(self._quiet_s):
            heard += data
            if _now_s() > deadline:
                return None
        return heard

    async def _in_step(
        self, query: bytes, framing: Framing, within_s: float, asked_s: float | None, heard: bytes
    ) -> tuple[bool, bytes | None]:
        """Ask until there is exactly one answer, or none at all; whether it came to that, and the answer.

        If the same was asked before, at `asked_s`, and not answered in what was `heard` since, its answer may be taken
        for this one's, which then comes to whoever asks next. So another one is waited for longer, by the time that
        this one took: a device that is slow once is as slow again.
        """
        for _ in range(_TRIES):
            again_s = _now_s()
            reply = await self.ask(query, framing, within_s)
            surplus_s = self._quiet_s
            if reply is not None and asked_s is not None and not _ends_with(heard, reply):
                surplus_s = max(surplus_s, min(_SLOWER * (_now_s() - asked_s), within_s))
            heard = await self._next(surplus_s)
            if not heard:
                return True, reply
            rest = await self._hear_out()
            if rest is None:
                break
            heard, asked_s = heard + rest, again_s
        return False, None


def _ends_with(heard: bytes, reply: bytes) -> bool:
    """Whether the last that was heard is this reply, all of it."""
    before = heard.removesuffix(reply)
    return before != heard and before[-1:] in (b"", b"\n", b"\r")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
