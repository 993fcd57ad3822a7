from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from duodaq import clock
from duodaq.errors import (
    DeliveryError,
    LifecycleError,
    PortBusyError,
    PortLostError,
    PortTimeoutError,
    ReplyFormatError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Idle, Lane, Port, Terminated
from duodaq.testing._scripted_port import Answer, Script, ScriptedCodec, ScriptedTransport


def echo(line: bytes) -> bytes | None:
    if line == b"ID?":
        return b"device 1\n"
    return b"".join(query + b"=ok\n" for query in line.split(b"?")[:-1]) if b"?" in line else None


class Bench:
    """A broker with one scripted port."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.line = ScriptedTransport(echo)

    async def port(self, script: Script = echo, *, codec: bool = True, **definition: object) -> Port:
        self.line.script = script
        facts = {"timeout_s": 0.1, "options": {"quiet_s": 0.02}} | definition
        port = await self.broker.add(PortDefinition("p", **facts), ScriptedCodec() if codec else None, self.line)
        await self.broker.open("p")
        return port

    @property
    def status(self):
        return self.broker.status()[0]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.broker.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await clock.pause(0.002)


async def test_an_exchange_returns_the_whole_reply_with_its_terminator(bench: Bench) -> None:
    port = await bench.port()
    assert await port.exchange(b"TP?\n", holder="a") == b"TP=ok\n"


async def test_several_queries_on_one_line_are_one_exchange(bench: Bench) -> None:
    port = await bench.port()
    assert await port.exchange(b"A?;B?\n", holder="a") == b"A=ok\n;B=ok\n"


async def test_a_command_without_reply_returns_when_it_is_written(bench: Bench) -> None:
    port = await bench.port()
    await port.write(b"SET 1\n", holder="a")
    assert bench.line.lines == [b"SET 1"]


async def test_writing_a_query_takes_its_reply_off_the_line(bench: Bench) -> None:
    port = await bench.port()
    await port.write(b"A?\n", holder="a")
    assert await port.exchange(b"B?\n", holder="a") == b"B=ok\n"
    assert bench.status.stray_bytes == 0


async def test_a_late_reply_never_answers_the_next_question(bench: Bench) -> None:
    port = await bench.port(lambda line: Answer(b"late\n", 0.15) if line == b"SLOW?" else echo(line))
    with pytest.raises(PortTimeoutError):
        await port.exchange(b"SLOW?\n", holder="a")
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"
    assert (bench.status.late, bench.status.resyncs) == (1, 1)


async def test_a_reply_in_two_halves_of_which_one_is_late_never_answers_the_next_question(bench: Bench) -> None:
    def script(line: bytes) -> object:
        return [Answer(b"la"), Answer(b"te\n", 0.2)] if line == b"SLOW?" else echo(line)

    port = await bench.port(script)
    with pytest.raises(PortTimeoutError):
        await port.exchange(b"SLOW?\n", holder="a")
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"


async def test_the_reply_to_a_cancelled_exchange_never_answers_the_next_question(bench: Bench) -> None:
    port = await bench.port(lambda line: Answer(b"late\n", 0.05) if line == b"SLOW?" else echo(line))
    task = asyncio.create_task(port.exchange(b"SLOW?\n", holder="a"))
    await until(lambda: bench.line.lines == [b"SLOW?"])
    task.cancel()
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"
    assert bench.status.late == 1


async def test_the_line_is_probed_before_the_next_lease_after_a_broken_exchange(bench: Bench) -> None:
    port = await bench.port(lambda line: None if line == b"DEAD?" else echo(line))
    with pytest.raises(PortTimeoutError):
        await port.exchange(b"DEAD?\n", holder="a")
    await port.exchange(b"B?\n", holder="b")
    assert bench.line.lines == [b"DEAD?", b"ID?", b"B?"]


async def test_a_reply_that_is_too_long_is_a_format_error_and_the_line_is_cleaned(bench: Bench) -> None:
    port = await bench.port(lambda line: b"x" * 2000 if line == b"BIG?" else echo(line))
    with pytest.raises(ReplyFormatError):
        await port.exchange(b"BIG?\n", holder="a")
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"


async def test_bytes_that_nobody_asked_for_are_logged_and_thrown_away(bench: Bench) -> None:
    port = await bench.port()
    bench.line.say(b"hello")
    await until(lambda: bench.status.stray_bytes == 5)
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"
    assert any(record.data == b"hello" and record.exchange == 0 for record in bench.broker.log("p"))


async def test_a_half_written_command_is_spoilt_and_never_carried_out_in_part(bench: Bench) -> None:
    port = await bench.port()
    bench.line.capacity = 3
    task = asyncio.create_task(port.write(b"SET 12345\n", holder="a"))
    await until(lambda: bytes(bench.line.written) == b"SET")
    bench.line.capacity = None
    task.cancel()
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"
    assert bench.line.lines == [b"SETID?", b"ID?", b"B?"]


async def test_without_a_codec_a_late_reply_is_waited_for_as_long_as_one_may_take(bench: Bench) -> None:
    """It answers nobody else's question, and once it is there nobody waits any longer."""
    bench.line.script = lambda line: [Answer(line[:-1] + b"=ok\n", 0.3 if line == b"A?" else 0.0)]
    port = await bench.port(bench.line.script, codec=False, timeout_s=2.0, idle_ms=10)
    with pytest.raises(PortTimeoutError):
        await port.exchange(b"A?\n", holder="a", reply=Idle(10), timeout_s=0.05)
    begun_s = asyncio.get_running_loop().time()
    assert await port.exchange(b"B?\n", holder="b", reply=Idle(10)) == b"B=ok\n"
    assert asyncio.get_running_loop().time() - begun_s < 1.5
    assert bench.broker.status()[0].late == 1


async def test_a_blocked_line_finishes_the_command_when_it_takes_bytes_again(bench: Bench) -> None:
    port = await bench.port()
    bench.line.capacity = 3
    task = asyncio.create_task(port.exchange(b"TP?123\n", holder="a", reply=Terminated(b"\n")))
    await until(lambda: bytes(bench.line.written) == b"TP?")
    bench.line.unblock()
    assert await task == b"TP=ok\n"


async def test_leases_are_granted_in_the_order_of_asking(bench: Bench) -> None:
    port = await bench.port()
    order: list[str] = []

    async def client(name: str) -> None:
        for _ in range(3):
            async with port.lease(name) as lease:
                order.append(name)
                await lease.exchange(b"A?\n")

    await asyncio.gather(*(client(name) for name in "abc"))
    assert "".join(order) == "abcabcabc"


async def test_nobody_comes_between_the_exchanges_of_a_lease(bench: Bench) -> None:
    port = await bench.port()

    async def other() -> None:
        await port.exchange(b"OTHER?\n", holder="b")

    async with port.lease("a") as lease:
        task = asyncio.create_task(other())
        await lease.exchange(b"A?\n")
        await clock.pause(0.01)
        await lease.exchange(b"B?\n")
    await task
    assert bench.line.lines == [b"A?", b"B?", b"OTHER?"]


async def test_a_waiter_is_told_who_holds_the_port_when_its_time_is_over(bench: Bench) -> None:
    port = await bench.port()
    async with port.lease("the scan"):
        with pytest.raises(PortBusyError) as caught:
            await port.exchange(b"A?\n", holder="b", wait_s=0.05)
    assert caught.value.holder == "the scan"
    assert caught.value.held_s >= 0.04
    assert bench.line.lines == []


async def test_a_cancelled_waiter_leaves_the_queue(bench: Bench) -> None:
    port = await bench.port()
    async with port.lease("a"):
        task = asyncio.create_task(port.exchange(b"B?\n", holder="b", wait_s=60))
        await until(lambda: bench.status.queue == 1)
        task.cancel()
        await until(lambda: bench.status.queue == 0)
    assert await port.exchange(b"C?\n", holder="c") == b"C=ok\n"


async def test_a_lease_returns_with_a_task_that_never_leaves_its_block(bench: Bench) -> None:
    port = await bench.port()
    kept = []

    async def careless() -> None:
        context = port.lease("careless")
        kept.append(context)
        await context.__aenter__()

    await asyncio.create_task(careless())
    assert await port.exchange(b"B?\n", holder="b", wait_s=0.5) == b"B=ok\n"
    await kept[0].__aexit__(None, None, None)


async def test_the_stop_lane_goes_before_those_who_wait_longer(bench: Bench) -> None:
    port = await bench.port()
    async with port.lease("a"):
        waiting = [asyncio.create_task(port.exchange(b"N?\n", holder="n"))]
        await until(lambda: bench.status.queue == 1)
        waiting.append(asyncio.create_task(port.exchange(b"S?\n", holder="s", lane=Lane.STOP)))
        await until(lambda: bench.status.queue == 2)
    await asyncio.gather(*waiting)
    assert bench.line.lines == [b"S?", b"N?"]


async def test_a_break_in_is_written_at_once_and_its_victim_ends_unknown(bench: Bench) -> None:
    port = await bench.port(lambda line: Answer(b"slow\n", 0.08) if line == b"HOME?" else echo(line))
    task = asyncio.create_task(port.exchange(b"HOME?\n", holder="a"))
    await until(lambda: bench.line.lines == [b"HOME?"])
    await bench.broker.stop("p")
    assert bench.line.lines == [b"HOME?", b"ST"]
    with pytest.raises(DeliveryError) as caught:
        await task
    assert caught.value.fate == "unknown"
    assert await port.exchange(b"B?\n", holder="b") == b"B=ok\n"


async def test_a_break_in_terminates_the_command_that_is_half_written(bench: Bench) -> None:
    port = await bench.port()
    bench.line.capacity = 2
    task = asyncio.create_task(port.write(b"MV 100\n", holder="a"))
    await until(lambda: bytes(bench.line.written) == b"MV")
    bench.line.capacity = None
    await bench.broker.stop("p")
    assert bench.line.lines[:2] == [b"MV", b"ST"]
    with pytest.raises(DeliveryError):
        await task


async def test_other_stop_bytes_wait_for_the_exchange_in_hand_but_not_for_the_lease(bench: Bench) -> None:
    port = await bench.port(lambda line: Answer(b"slow\n", 0.05) if line == b"SLOW?" else echo(line))
    async with port.lease("a") as lease:
        task = asyncio.create_task(lease.exchange(b"SLOW?\n"))
        await until(lambda: bench.line.lines == [b"SLOW?"])
        await bench.broker.stop("p", b"OUTP OFF\n")
        assert await task == b"slow\n"
        assert bench.line.lines == [b"SLOW?", b"OUTP OFF"]


async def test_a_stop_ends_the_moves_of_those_who_began_before(bench: Bench) -> None:
    port = await bench.port()
    async with port.lease("a") as lease:
        waiting = asyncio.create_task(port.write(b"MV 2\n", holder="b"))
        await until(lambda: bench.status.queue == 1)
        await bench.broker.stop("p")
        with pytest.raises(StoppedError) as caught:
            await lease.write(b"MV 1\n")
        assert await lease.exchange(b"A?\n") == b"A=ok\n"
    with pytest.raises(StoppedError):
        await waiting
    assert caught.value.fate == "not done"
    await port.write(b"MV 3\n", holder="a")
    assert bench.line.lines == [b"ST", b"A?", b"MV 3"]


async def test_after_stop_all_nothing_moves_until_a_person_resets_it(bench: Bench) -> None:
    port = await bench.port()
    stopped = await bench.broker.stop_all({"p": None, "nowhere": None}, who="red button")
    assert isinstance(stopped["p"], int)
    assert isinstance(stopped["nowhere"], Exception)
    assert bench.broker.latched
    with pytest.raises(UnsafeStateError, match="red button"):
        await port.write(b"MV 1\n", holder="a")
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
    await port.write(b"MV 0\n", holder="safe state", lane=Lane.SAFETY)
    bench.broker.reset_latch("Ada")
    await port.write(b"MV 2\n", holder="a")
    assert bench.line.lines == [b"ST", b"A?", b"MV 0", b"MV 2"]


async def test_a_lost_line_fails_the_one_in_hand_and_those_who_wait(bench: Bench) -> None:
    port = await bench.port(lambda _: None)
    tasks = [asyncio.create_task(port.exchange(b"A?\n", holder=name)) for name in "ab"]
    await until(lambda: bench.status.queue == 1)
    bench.line.unplug()
    for task in tasks:
        with pytest.raises(PortLostError):
            await task


async def test_a_lost_line_is_opened_again_by_itself(bench: Bench) -> None:
    port = await bench.port()
    bench.line.unplug()
    with pytest.raises(PortLostError):
        await port.exchange(b"A?\n", holder="a")
    bench.line.replug()
    await until(lambda: bench.status.reconnects == 1)
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"


async def test_another_device_on_the_same_cable_is_not_taken_for_the_old_one(bench: Bench) -> None:
    port = await bench.port()
    await port.exchange(b"ID?\n", holder="a")
    bench.line.unplug()
    bench.line.script = lambda line: b"device 2\n" if line == b"ID?" else echo(line)
    bench.line.replug()
    await until(lambda: "another device" in bench.status.last_error)
    assert bench.status.state == "lost"
    bench.line.script = echo
    await until(lambda: bench.status.reconnects == 1)


async def test_what_can_be_read_only_once_reaches_everybody_who_asks(bench: Bench) -> None:
    errors = [b"6,no such command\n"]

    def script(line: bytes) -> bytes | None:
        return (errors.pop() if errors else b"0,none\n") if line == b"ERR?" else echo(line)

    port = await bench.port(lambda line: b"0,none\n" if line == b"ERR?" else echo(line))
    for name in "ab":
        await port.exchange(b"ERR?\n", holder=name)
    bench.line.script = script
    assert await port.exchange(b"ERR?\n", holder="a") == b"6,no such command\n"
    assert await port.exchange(b"ERR?\n", holder="b") == b"6,no such command\n"
    assert await port.exchange(b"ERR?\n", holder="b") == b"0,none\n"
    assert await port.exchange(b"ERR?\n", holder="a") == b"0,none\n"


async def test_several_ports_are_acquired_in_one_order_so_that_nobody_waits_for_ever() -> None:
    broker = Broker()
    for name in "xy":
        await broker.add(PortDefinition(name), ScriptedCodec(), ScriptedTransport(echo))
        await broker.open(name)

    async def client(names: str) -> None:
        for _ in range(20):
            async with broker.acquire_many(names, "c", timeout_s=2) as leases:
                await leases["x"].exchange(b"A?\n")
                await leases["y"].exchange(b"A?\n")

    async with asyncio.timeout(5):
        await asyncio.gather(client("xy"), client("yx"))
    await broker.aclose()


async def test_everything_on_the_wire_is_recorded_with_holder_and_exchange(bench: Bench) -> None:
    port = await bench.port()
    heard: list[bytes] = []
    leave = bench.broker.subscribe_log("p", lambda record: heard.append(record.data))
    await port.exchange(b"A?\n", holder="a")
    leave()
    await port.exchange(b"B?\n", holder="b")
    opened, *facts = [(r.direction, r.data, r.holder, r.exchange) for r in bench.broker.log("p")]
    assert opened == ("!", b"open", "broker", 0)
    assert facts == [(">", b"A?\n", "a", 1), ("<", b"A=ok\n", "a", 1), (">", b"B?\n", "b", 2), ("<", b"B=ok\n", "b", 2)]
    assert heard == [b"A?\n", b"A=ok\n"]


async def test_without_a_codec_a_reply_ends_with_silence(bench: Bench) -> None:
    port = await bench.port(lambda _: [Answer(b"a", 0.005), Answer(b"b\n", 0.015)], codec=False, idle_ms=40.0)
    assert await port.exchange(b"?\n", holder="a") == b"ab\n"


async def test_without_a_codec_and_idle_time_the_caller_has_to_say_what_is_answered(bench: Bench) -> None:
    port = await bench.port(codec=False)
    with pytest.raises(LifecycleError, match="reply="):
        await port.exchange(b"A?\n", holder="a")
    assert await port.exchange(b"A?\n", holder="a", reply=Terminated()) == b"A=ok\n"


async def test_closing_ends_those_who_hold_and_wait_and_reports_it(bench: Bench) -> None:
    port = await bench.port(lambda _: None)
    task = asyncio.create_task(port.exchange(b"A?\n", holder="a"))
    await until(lambda: bench.line.lines == [b"A?"])
    (report,) = await bench.broker.aclose()
    assert (report.component, report.outcome) == ("port.p", "forced")
    with pytest.raises(LifecycleError):
        await task


async def test_a_line_that_never_falls_silent_is_opened_anew(bench: Bench) -> None:
    port = await bench.port(options={"quiet_s": 0.1})

    def chatter() -> None:
        if bench.line.opened == 1 and bench.line.is_open:
            bench.line.say(b"x")
            asyncio.get_running_loop().call_later(0.002, chatter)

    chatter()
    await until(lambda: bench.status.stray_bytes > 0)
    with pytest.raises((PortLostError, PortBusyError)):
        await port.exchange(b"A?\n", holder="a")
    await until(lambda: bench.status.reconnects == 1)
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
