"""Of an instrument's two owners only the newer one writes, whatever the older one has queued, held or begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq import clock
from duodaq.errors import FencedError, LifecycleError
from duodaq.migration import violations
from duodaq.model import InstrumentDefinition, PortDefinition, WireRecord, holder_of, owner_named
from duodaq.ports import FENCED, Broker, Fences, Port
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport

OLD, NEW = "v2.m", "v4.m@1"


def answer(line: bytes) -> Answer | None:
    return Answer(line.rstrip(b"?") + b"\n", 0.02) if line.endswith(b"?") else None


@pytest.fixture
async def line() -> AsyncIterator[tuple[Broker, Port, ScriptedTransport]]:
    broker, transport = Broker(), ScriptedTransport(answer)
    port = await broker.add(PortDefinition("p"), ScriptedCodec(), transport)
    await broker.open("p")
    yield broker, port, transport
    await broker.aclose()


def test_a_holder_says_runtime_instrument_and_epoch() -> None:
    definition = InstrumentDefinition("m", "v4", "x", epoch=3)
    assert holder_of(definition) == "v4.m@3"
    assert owner_named("v4.m@3") == ("v4", "m", 3)
    assert owner_named("v2.m") == ("v2", "m", 0)
    assert owner_named("stop m") is None


async def test_what_the_old_owner_sends_is_refused_and_the_new_one_writes(line) -> None:
    broker, port, transport = line
    assert await port.exchange(b"A?\n", holder=OLD) == b"A\n"
    await broker.fence("m", NEW, "p")
    with pytest.raises(FencedError, match=r"belongs to v4\.m@1") as refused:
        await port.exchange(b"B?\n", holder=OLD)
    assert refused.value.fate == "not done"
    assert await port.exchange(b"C?\n", holder=NEW) == b"C\n"
    assert transport.lines == [b"A?", b"C?"]


async def test_an_exchange_in_hand_ends_and_those_behind_it_are_refused(line) -> None:
    broker, port, transport = line
    first, second = (asyncio.ensure_future(port.exchange(data, holder=OLD)) for data in (b"A?\n", b"B?\n"))
    await clock.pause(0)
    await clock.pause(0)
    await broker.fence("m", NEW, "p")
    assert await first == b"A\n"
    with pytest.raises(FencedError):
        await second
    assert transport.lines == [b"A?"]


async def test_a_lease_of_the_old_owner_keeps_nobody_waiting(line) -> None:
    broker, port, transport = line
    async with port.lease(OLD) as lease:
        await lease.exchange(b"A?\n")
        await broker.fence("m", NEW, "p")
        assert await port.exchange(b"C?\n", holder=NEW, wait_s=0.5) == b"C\n"
        with pytest.raises(LifecycleError, match="this lease is over"):
            await lease.exchange(b"B?\n")
    assert transport.lines == [b"A?", b"C?"]


async def test_a_stop_in_the_old_owners_name_is_refused_and_a_persons_is_not(line) -> None:
    broker, _, transport = line
    await broker.fence("m", NEW, "p")
    with pytest.raises(FencedError):
        await broker.stop("p", b"ST\n", holder=OLD)
    await broker.stop("p", b"ST\n", holder="stop m")
    assert transport.lines == [b"ST"]


async def test_other_instruments_on_the_port_notice_nothing(line) -> None:
    broker, port, _ = line
    await broker.fence("m", NEW, "p")
    assert await port.exchange(b"A?\n", holder="v2.other") == b"A\n"


def test_an_epoch_never_goes_back() -> None:
    fences = Fences()
    fences.give("m", "v4.m@2")
    for stale in ("v2.m@2", "v2.m@1", "v2.m"):
        with pytest.raises(FencedError):
            fences.give("m", stale)
    assert fences.owner("m") == "v4.m@2"


def record(number: int, direction: str, holder: str, exchange: int, data: bytes = b"D?\n") -> WireRecord:
    return WireRecord(number, "p", direction, data, holder, exchange, None, number)


def sound_log(owners: list[str]) -> list[WireRecord]:
    records: list[WireRecord] = []
    for owner in owners:
        records.append(record(len(records) + 1, "!", owner, 0, FENCED.encode()))
        for _ in range(3):
            exchange = len(records)
            records.append(record(len(records) + 1, ">", owner, exchange))
            records.append(record(len(records) + 1, "<", owner, exchange))
    return records


@given(st.integers(1, 5), st.data())
def test_a_sound_log_has_no_violation_and_one_strange_write_anywhere_is_found(
    changes: int, data: st.DataObject
) -> None:
    owners = [f"{'v2' if n % 2 else 'v4'}.m@{n}" for n in range(1, changes + 1)]
    log = sound_log(owners)
    assert violations(log) == []
    place = data.draw(st.integers(1, len(log)))
    now = [o for r in log[:place] if r.direction == "!" for o in [r.holder]][-1]
    strange = data.draw(st.sampled_from([*(o for o in [*owners, "v2.m"] if o != now)]))
    planted = [*log[:place], record(999, ">", strange, 10_000), *log[place:]]
    assert [v.sequence for v in violations(planted) if v.holder == strange][:1] == [999]


def test_an_exchange_that_writes_into_a_later_one_is_found() -> None:
    log = [record(1, ">", "v2.m", 1), record(2, ">", "v2.o", 2), record(3, ">", "v2.m", 1)]
    assert [v.sequence for v in violations(log)] == [3]


async def test_the_wire_log_of_a_real_port_passes_the_check(line) -> None:
    broker, port, _ = line
    await port.exchange(b"A?\n", holder=OLD)
    await broker.fence("m", NEW, "p")
    await port.exchange(b"C?\n", holder=NEW)
    log = list(broker.log("p"))
    assert violations(log) == []
    assert [r.holder for r in log if r.data == FENCED.encode()] == [NEW]
    late = WireRecord(log[-1].t_ns + 1, "p", ">", b"D?\n", OLD, 99, None, log[-1].sequence + 1)
    assert len(violations([*log, late])) == 1


def test_an_answer_to_an_exchange_that_is_over_is_found() -> None:
    log = [record(1, ">", "v2.m", 1), record(2, ">", "v2.o", 2), record(3, "<", "v2.m", 1)]
    assert [v.sequence for v in violations(log)] == [3]


async def test_a_stop_beside_a_reply_that_is_awaited_is_no_violation(line) -> None:
    broker, port, transport = line
    waiting = asyncio.create_task(port.exchange(b"A?\n", holder=OLD))
    while not transport.lines:
        await clock.pause(0.001)
    await broker.stop("p", b"ST\n", "stop")
    await asyncio.wait({waiting})
    waiting.exception()
    await port.exchange(b"C?\n", holder=OLD)
    assert violations(broker.log("p")) == []
