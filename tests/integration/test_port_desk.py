"""Ports at the other end of a worker's link: what is given back when it dies, what stops there, what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from duodaq.clock import Deadline, pause
from duodaq.errors import (
    ConfigError,
    DataError,
    DeliveryError,
    LifecycleError,
    PortBusyError,
    PortTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import PortDefinition
from duodaq.ports import Broker, PortDesk, Terminated
from duodaq.ports import _sentences as m
from duodaq.ports._port_desk import MOST
from duodaq.testing._linked_broker import LinkedBroker
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport


def device(line: bytes) -> bytes | Answer | None:
    if line == b"SLOW?":
        return Answer(b"SLOW=late\n", 0.15)
    return line[:-1] + b"=ok\n" if line.endswith(b"?") and line != b"MUTE?" else None


class Lab:
    """A port, its device, and a link to it."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.line = ScriptedTransport(device)
        self.linked = LinkedBroker(self.broker)

    async def open(self) -> None:
        facts = PortDefinition("p", serial={"path": "x"}, codec="scripted", timeout_s=1.0, options={"quiet_s": 0.02})
        await self.broker.add(facts, ScriptedCodec(longest_reply_s=0.3), self.line)
        await self.broker.open("p")
        await self.linked.open()

    async def far(self, work: Callable[[], Any]) -> Any:
        """The result of `work()`, awaited at the far end."""

        async def run() -> Any:
            return await work()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self.linked.far_loop))

    async def here(self, request: bytes = b"B?\n") -> bytes:
        return await self.broker.port("p").exchange(request, holder="here", wait_s=3)

    def exchange(self, request: bytes, **facts: Any) -> Any:
        return self.linked.port("p").exchange(request, holder="far", **facts)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    await made.open()
    yield made
    await made.linked.aclose()
    await made.broker.aclose()


async def until(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await pause(0.002)


async def test_an_exchange_in_hand_when_the_link_dies_is_cut_and_its_reply_answers_nobody_else(lab: Lab) -> None:
    asking = asyncio.create_task(lab.far(lambda: lab.exchange(b"SLOW?\n")))
    await until(lambda: lab.line.lines == [b"SLOW?"])
    lab.linked.cut()
    assert await lab.here() == b"B=ok\n"
    assert lab.broker.status()[0].late == 1
    assert lab.linked.idle
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_lease_and_all_who_wait_go_with_the_link(lab: Lab) -> None:
    async def hold() -> None:
        async with lab.linked.port("p").lease("far holder"):
            await asyncio.Event().wait()

    holding = asyncio.create_task(lab.far(hold))
    await until(lambda: lab.broker.status()[0].holder == "far holder")
    waiting = [asyncio.create_task(lab.far(lambda: lab.exchange(b"W?\n", wait_s=30))) for _ in range(3)]
    await until(lambda: lab.broker.status()[0].queue == 3)
    lab.linked.cut()
    assert await lab.here() == b"B=ok\n"
    assert b"W?" not in lab.line.lines
    assert lab.broker.status()[0].holder is None
    for task in (holding, *waiting):
        task.cancel()
    await asyncio.gather(holding, *waiting, return_exceptions=True)


async def test_a_driver_call_that_holds_when_the_link_dies_holds_no_longer(lab: Lab) -> None:
    session, go_on = lab.linked.session("p", "driver", hold_max_s=60), threading.Event()

    def drive() -> None:
        with session.call():
            session.write(b"A?\n")
            session.read_until(b"\n")
            go_on.wait(10)

    call = asyncio.create_task(asyncio.to_thread(drive))
    await until(lambda: lab.broker.status()[0].holder == "driver" and lab.line.lines == [b"A?"])
    lab.linked.cut()
    assert await lab.here() == b"B=ok\n"
    go_on.set()
    await asyncio.gather(call, return_exceptions=True)


async def test_the_errors_of_the_broker_come_over_the_link_as_they_are(lab: Lab) -> None:
    with pytest.raises(PortTimeoutError) as late:
        await lab.far(lambda: lab.exchange(b"MUTE?\n", timeout_s=0.05))
    assert late.value.port == "p"
    async with lab.broker.port("p").lease("the scan"):
        with pytest.raises(PortBusyError) as busy:
            await lab.far(lambda: lab.exchange(b"A?\n", wait_s=0.05))
    assert busy.value.holder == "the scan"
    with pytest.raises(ConfigError, match="no port named 'q'"):
        lab.linked.session("q", "far")


async def test_no_moving_byte_of_a_call_follows_a_stop_also_before_the_far_end_has_heard_of_it(lab: Lab) -> None:
    session, begun, stopped = lab.linked.session("p", "driver"), threading.Event(), threading.Event()

    def drive() -> None:
        with session.call():
            begun.set()
            stopped.wait(5)
            session.write(b"MV 1\n")

    call = asyncio.create_task(asyncio.to_thread(drive))
    await until(begun.is_set)
    lab.linked.remote.note_stop = lambda port, epoch: None  # the news is slow
    await lab.broker.stop("p")
    stopped.set()
    with pytest.raises(StoppedError):
        await call
    assert lab.line.lines == [b"ST"]
    with pytest.raises(StoppedError):  # it knows fewer stops than there were: the broker refuses it
        await asyncio.to_thread(drive)
    assert lab.line.lines == [b"ST"]


async def test_a_call_begun_after_the_stop_moves(lab: Lab) -> None:
    await lab.broker.stop("p")
    await until(lambda: lab.linked.port("p").owner.epoch == 1)
    session = lab.linked.session("p", "driver")

    def drive() -> None:
        with session.call():
            session.write(b"MV 2\n")

    await asyncio.to_thread(drive)
    assert lab.line.lines == [b"ST", b"MV 2"]


async def test_a_stop_from_afar_cuts_what_is_in_hand_and_is_told_when_it_was_on_the_wire(lab: Lab) -> None:
    asking = asyncio.create_task(lab.far(lambda: lab.exchange(b"SLOW?\n")))
    await until(lambda: lab.line.lines == [b"SLOW?"])
    assert await lab.linked.stop("p") > 0
    with pytest.raises(DeliveryError) as cut:
        await asking
    assert cut.value.fate == "unknown"
    assert lab.line.lines == [b"SLOW?", b"ST"]


async def test_the_latch_is_known_at_the_far_end_and_refuses_there_too(lab: Lab) -> None:
    await lab.broker.stop_all({"p": None}, "a test")
    await until(lambda: lab.linked.remote.latched)
    with pytest.raises(UnsafeStateError):
        await lab.far(lambda: lab.exchange(b"MV 1\n"))
    lab.broker.reset_latch("a test")
    await until(lambda: not lab.linked.remote.latched)
    assert await lab.far(lambda: lab.exchange(b"MV 2\n")) == b""


async def test_cancelling_at_the_far_end_cuts_it_at_the_broker(lab: Lab) -> None:
    asking = asyncio.run_coroutine_threadsafe(lab.exchange(b"SLOW?\n"), lab.linked.far_loop)
    await until(lambda: lab.line.lines == [b"SLOW?"])
    asking.cancel()
    assert await lab.here() == b"B=ok\n"
    await until(lambda: lab.linked.idle)


async def test_thousands_of_exchanges_leave_nothing_at_the_desk(lab: Lab) -> None:
    session = lab.linked.session("p", "driver")

    def drive() -> None:
        for _ in range(2 * MOST):
            with session.call():
                session.write(b"A?\n")
                assert session.read_until(b"\n") == b"A=ok\n"

    await asyncio.to_thread(drive)
    await until(lambda: lab.linked.idle)


FORGED = {
    "no such port": m.Exchanged(1, "q", b"A?\n", True, 1.0, False, False, None, None),
    "no such ticket": m.Exchanged(1, "p", b"A?\n", True, 1.0, False, False, None, None, ticket=77),
    "no framing": m.Exchanged(1, "p", b"A?\n", 5, 1.0, False, False, None, None),
    "a framing that is a call": m.Exchanged(
        1, "p", b"A?\n", msgspec.msgpack.Ext(1, b"\x80\x05\x8c\x02os\x8c\x06system\x93."), 1.0, False, False, None, None
    ),
    "no such lane": m.Exchanged(1, "p", b"A?\n", True, 1.0, False, False, None, None, lane=9),
    "a ticket for no port": m.TicketAsk(1, "q", "me", 2, None, None),
    "a ticket for no lane": m.TicketAsk(1, "p", "me", 9, None, None),
    "suspicion of no port": m.Suspect("q"),
}


@pytest.mark.parametrize("request_", FORGED.values(), ids=FORGED)
async def test_a_forged_request_ends_the_link_and_writes_nothing(lab: Lab, request_: m.Message) -> None:
    await lab.far(lambda: _send(lab, request_))
    await until(lambda: lab.linked.lost)
    assert "makes no sense" in lab.linked.lost[0]
    assert lab.linked.idle
    assert await lab.here() == b"B=ok\n"
    assert lab.line.lines == [b"B?"]


async def _send(lab: Lab, message: m.Message) -> None:
    lab.linked.far_pipe.send(message)


@pytest.mark.parametrize("request_", FORGED.values(), ids=FORGED)
async def test_a_forged_request_on_the_line_of_the_threads_ends_that_too(lab: Lab, request_: m.Message) -> None:
    lab.linked.lines.send(request_)
    await until(lambda: lab.linked.lost)
    assert "makes no sense" in lab.linked.lost[0]
    assert lab.linked.idle
    assert await lab.here() == b"B=ok\n"
    assert lab.line.lines == [b"B?"]


async def test_a_driver_that_waits_for_a_reply_is_freed_at_once_when_its_session_is_revoked(lab: Lab) -> None:
    session, freed = lab.linked.session("p", "driver"), asyncio.Event()

    def drive() -> None:
        session.write(b"MUTE?\n")
        session.read_until(b"\n", 20.0)

    call = asyncio.create_task(asyncio.to_thread(drive))
    call.add_done_callback(lambda _: freed.set())
    await until(lambda: lab.line.lines == [b"MUTE?"])
    await pause(0.02)  # it sleeps by then
    session.revoke("hung")
    await asyncio.wait_for(freed.wait(), 0.8)  # the exchange itself may take a second
    with pytest.raises(LifecycleError, match="hung"):
        await call
    assert await lab.here() == b"B=ok\n"


async def test_what_a_thread_held_that_has_died_goes_back(lab: Lab) -> None:
    session = lab.linked.session("p", "driver", hold_max_s=60)

    def drive() -> None:
        session.call().__enter__()  # and never leaves it
        session.write(b"A?\n")

    thread = threading.Thread(target=drive)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await lab.here() == b"B=ok\n"
    await until(lambda: lab.linked.idle)


async def test_what_nobody_reads_is_heard_all_the_same(lab: Lab) -> None:
    session = lab.linked.session("p", "driver")
    await asyncio.to_thread(session.write, b"A?\n")
    await until(lambda: len(session._buffer))
    assert await asyncio.to_thread(session.read_until, b"\n") == b"A=ok\n"


async def test_a_session_is_not_used_on_the_loop_of_its_process(lab: Lab) -> None:
    session = lab.linked.session("p", "driver")

    async def use() -> None:
        session.write(b"A?\n")

    with pytest.raises(LifecycleError, match="would block"):
        await lab.far(use)
    assert lab.line.lines == []


async def test_endings_of_what_is_not_known_change_nothing(lab: Lab) -> None:
    for message in (m.TicketEnd(9), m.SeatEnd(9, True), m.SeatEnd(9, False), m.Reading(9, True), m.Abandoned(9)):
        lab.linked.desk.heard(message)
    assert await lab.far(lambda: lab.exchange(b"A?\n")) == b"A=ok\n"


async def test_a_stop_of_no_port_is_answered(lab: Lab) -> None:
    said: list[m.Message] = []
    tasks: list[asyncio.Future[None]] = []
    desk = PortDesk(lab.broker, said.append, lambda work: tasks.append(asyncio.ensure_future(work)))
    desk.heard(m.StopPort(1, "q", None, "far", True))
    await asyncio.gather(*tasks)
    (answer,) = said
    assert isinstance(answer, m.Stopped)
    assert answer.error is not None
    desk.close()


async def test_too_much_at_once_is_refused_and_all_given_back(lab: Lab) -> None:
    desk = PortDesk(lab.broker, lambda _: None, lambda _: None)
    async with lab.broker.port("p").lease("holder"):
        with pytest.raises(DataError, match="at once"):  # noqa: PT012 - which one is refused is the desk's choice
            for number in range(1, MOST + 3):
                desk.heard(m.TicketAsk(number, "p", "flood", 2 if number < 200 else 1, None, None))
        desk.close()
    assert lab.broker.status()[0].queue == 0
    assert await lab.here() == b"B=ok\n"


async def test_a_number_used_twice_is_refused(lab: Lab) -> None:
    desk = PortDesk(lab.broker, lambda _: None, lambda _: None)
    async with lab.broker.port("p").lease("holder"):
        desk.heard(m.TicketAsk(1, "p", "far", 2, None, None))
        with pytest.raises(DataError, match="twice"):
            desk.heard(m.TicketAsk(1, "p", "far", 2, None, None))
        desk.heard(m.Exchanged(2, "p", b"A?\n", True, 1.0, False, False, None, None))
        with pytest.raises(DataError, match="twice"):
            desk.heard(m.Exchanged(2, "p", b"A?\n", True, 1.0, False, False, None, None))
        desk.close()
        assert lab.broker.status()[0].queue == 0


async def test_a_framing_of_a_drivers_own_is_refused_where_it_is_used(lab: Lab) -> None:
    class Own(Terminated):
        pass

    with pytest.raises(DataError, match="does not leave"):
        await lab.far(lambda: lab.exchange(b"A?\n", reply=Own()))
    assert lab.linked.lost == []
    assert await lab.far(lambda: lab.exchange(b"A?\n", reply=Terminated(b"k\n"))) == b"A=ok\n"
