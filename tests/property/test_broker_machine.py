"""Any mix of clients, slow replies, cancellations, stops and lost lines: no reply reaches another question."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq import clock
from duodaq.errors import DuodaqError
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Port
from duodaq.testing import run_virtual
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport

LONGEST_S = 0.5


@dataclass(frozen=True)
class Ask:
    """One question: when, how the device answers (after how long, in how many pieces), and when its asker gives up."""

    at_ms: int
    after_ms: int | None
    pieces: int
    cancel_ms: int | None
    leased: bool


asks = st.builds(
    Ask,
    at_ms=st.integers(0, 300),
    after_ms=st.none() | st.integers(0, int(LONGEST_S * 1000) - 50),
    pieces=st.integers(1, 3),
    cancel_ms=st.none() | st.integers(0, 200),
    leased=st.booleans(),
)


class Device:
    """Answers question ``n,after,pieces?`` with ``=n`` as it asks for, one question after the other, as devices do."""

    def __init__(self) -> None:
        self.busy_until_s = 0.0

    def answer(self, line: bytes) -> list[Answer]:
        if line == b"ID?":
            return [Answer(b"device\n", self._delay(0.0))]
        if not line.endswith(b"?"):
            return []
        number, after_ms, pieces = line[:-1].split(b",")
        if after_ms == b"never":
            return []
        delay_s, reply = self._delay(int(after_ms) / 1000), b"=" + number + b"\n"
        cut = [len(reply) * i // int(pieces) for i in range(int(pieces) + 1)]
        return [Answer(reply[a:b], delay_s + 0.004 * i) for i, (a, b) in enumerate(pairwise(cut))]

    def _delay(self, takes_s: float) -> float:
        now_s = asyncio.get_running_loop().time()
        self.busy_until_s = max(now_s, self.busy_until_s) + takes_s
        return self.busy_until_s - now_s


async def question(port: Port, number: int, ask: Ask) -> str:
    after = b"never" if ask.after_ms is None else b"%d" % ask.after_ms
    request = b"%d,%s,%d?\n" % (number, after, ask.pieces)
    await clock.pause(ask.at_ms / 1000)
    try:
        async with asyncio.timeout(None if ask.cancel_ms is None else ask.cancel_ms / 1000):
            if ask.leased:
                async with port.lease(f"client {number}", timeout_s=60) as lease:
                    reply = await lease.exchange(request)
            else:
                reply = await port.exchange(request, holder=f"client {number}", wait_s=60)
    except DuodaqError as error:
        return type(error).__name__
    except TimeoutError:
        return "cancelled"
    assert reply == b"=%d\n" % number
    return "answered"


async def session(asked: list[Ask], stops_ms: list[int], unplug_ms: int | None) -> None:
    broker, line = Broker(), ScriptedTransport(Device().answer)
    await broker.add(PortDefinition("p", timeout_s=0.2, options={"quiet_s": 0.02}), ScriptedCodec(LONGEST_S), line)
    await broker.open("p")
    port = broker.port("p")

    async def stop(at_ms: int) -> None:
        await clock.pause(at_ms / 1000)
        asked_ns = asyncio.get_running_loop().time()
        try:
            await broker.stop("p")
        except DuodaqError:
            return  # unplugged
        assert asyncio.get_running_loop().time() - asked_ns < 0.05

    async def replug() -> None:
        if unplug_ms is not None:
            await clock.pause(unplug_ms / 1000)
            line.unplug()
            await clock.pause(0.1)
            line.replug()

    fates = await asyncio.gather(
        *(question(port, number, ask) for number, ask in enumerate(asked)), *map(stop, stops_ms), replug()
    )
    undisturbed = not stops_ms and unplug_ms is None
    if undisturbed and all(a.cancel_ms is None and a.after_ms is not None and a.after_ms < 150 for a in asked):
        assert set(fates[: len(asked)]) == {"answered"}
    await clock.pause(6)  # longer than the longest back-off
    assert await port.exchange(b"99,0,1?\n", holder="last") == b"=99\n"
    status = broker.status()[0]
    assert (status.holder, status.queue, status.state) == (None, 0, "open")
    await broker.aclose()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(asks, min_size=1, max_size=8),
    st.lists(st.integers(0, 800), max_size=2),
    st.none() | st.integers(0, 800),
)
def test_no_reply_ever_answers_another_question(asked: list[Ask], stops_ms: list[int], unplug_ms: int | None) -> None:
    run_virtual(session(asked, stops_ms, unplug_ms))
