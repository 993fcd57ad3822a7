"""When spares are made, given away and replaced: the decisions, on virtual time and with children that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from duodaq.clock import pause
from duodaq.errors import LifecycleError
from duodaq.telemetry import listen_to_log
from duodaq.testing import virtual_time
from duodaq.workers._spares import LONGEST_REFILL_S, Spares, refill_delay_s


class FakeChild:
    pid = 4711

    def __init__(self, preload: tuple[str, ...], paced: bool) -> None:
        self.preload, self.paced = preload, paced
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False

    @property
    def exited(self) -> bool:
        return self.gone.done()

    def die(self) -> None:
        self.gone.set_result(None)

    def close(self) -> None:
        self.closed = True

    async def aclose(self, timeout_s: float = 1.0) -> None:
        self.close()


class FakeStarter:
    """Counts what it is asked for, and when. `fails`: so many times it cannot; `takes_s`: how long it needs."""

    def __init__(self, fails: int = 0, takes_s: float = 0.0) -> None:
        self.made: list[FakeChild] = []
        self.asked_s: list[float] = []
        self.fails, self.takes_s = fails, takes_s

    async def spawn(self, *, entry: str, preload: Sequence[str] = (), paced: bool = False, timeout_s: float) -> Any:
        self.asked_s.append(asyncio.get_running_loop().time())
        await pause(self.takes_s)
        if self.fails:
            self.fails -= 1
            raise LifecycleError("none today")
        self.made.append(FakeChild(tuple(preload), paced))
        return self.made[-1]


def spares_of(starter: FakeStarter) -> Spares:
    return Spares(starter, entry="some:entry")


@virtual_time
async def test_lab_that_ends_at_once_never_pays_for_a_spare() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"]})
    await pause(0.2)
    await spares.aclose()
    assert starter.asked_s == []


@virtual_time
async def test_bare_spare_and_one_for_each_stanza_are_made_one_import_after_the_other() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"], "stage": ["qcodes"]})
    await pause(10)
    assert [(child.preload, child.paced) for child in starter.made] == [
        ((), True),
        (("pymeasure",), True),
        (("qcodes",), True),
    ]
    assert starter.asked_s == pytest.approx([0.3, 0.3, 1.3])
    assert set(spares.ready) == {None, "dmm", "stage"}
    await spares.aclose()
    assert all(child.closed for child in starter.made)


@virtual_time
async def test_take_prefers_the_stanza_s_own_then_the_bare_then_a_new_one() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"]})
    await pause(5)
    bare, own = starter.made
    assert await spares.take("dmm", ["pymeasure"], timeout_s=1) is own
    assert await spares.take("dmm", ["pymeasure"], timeout_s=1) is bare
    third = await spares.take("dmm", ["pymeasure"], timeout_s=1)
    assert third is starter.made[2]
    assert (third.preload, third.paced) == (("pymeasure",), False)
    await pause(5)
    assert [child.preload for child in starter.made[3:]] == [(), ("pymeasure",)]
    await spares.aclose()
    assert not any(child.closed for child in (own, bare, third))  # they are the takers'


@virtual_time
async def test_what_was_taken_is_replaced_a_moment_later() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start()
    await pause(5)
    await spares.take(timeout_s=1)
    await pause(0.2)
    assert len(starter.made) == 1
    await pause(0.2)
    assert len(starter.made) == 2
    await spares.aclose()


@virtual_time
async def test_stanza_that_was_taken_has_a_spare_from_then_on_until_it_is_dropped() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start()
    await pause(1)
    await spares.take("dmm", ["pymeasure"], timeout_s=1)
    await pause(5)
    kept = spares.ready["dmm"]
    spares.drop("dmm")
    assert kept.closed
    await pause(5)
    assert set(spares.ready) == {None}
    await spares.aclose()


@virtual_time
async def test_stanza_with_other_modules_has_another_spare() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"]})
    await pause(5)
    first = spares.ready["dmm"]
    spares.start({"dmm": ["qcodes"]})
    assert first.closed
    await pause(5)
    assert spares.ready["dmm"].preload == ("qcodes",)
    await spares.aclose()


@virtual_time
async def test_spare_that_died_is_neither_given_away_nor_missed_for_long() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start()
    await pause(20)
    starter.made[0].die()
    taken = await spares.take(timeout_s=1)
    assert taken is starter.made[1]
    await pause(1)
    assert set(spares.ready) == {None}
    assert starter.made[0].closed
    await spares.aclose()


@virtual_time
async def test_spares_that_die_young_are_made_more_and_more_seldom() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start()
    for _ in range(5):
        before = len(starter.made)
        while len(starter.made) == before:
            await pause(0.05)
        await pause(0)
        starter.made[-1].die()
    gaps = [later - sooner for sooner, later in zip(starter.asked_s, starter.asked_s[1:], strict=False)]
    assert gaps == pytest.approx([0.6, 1.2, 2.4, 4.8], abs=0.3)
    await spares.aclose()


@virtual_time
async def test_spare_that_cannot_be_made_is_tried_again_and_the_reason_kept() -> None:
    starter = FakeStarter(fails=2)
    spares = spares_of(starter)
    spares.start()
    await pause(0.5)
    assert "none today" in str(spares.last_error)
    await pause(5)
    assert set(spares.ready) == {None}
    assert spares.last_error is None
    await spares.aclose()


@virtual_time
async def test_stanza_dropped_while_its_spare_is_made_gets_none() -> None:
    starter = FakeStarter(takes_s=1.0)
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"]})
    await pause(2.0)  # the bare one is there at 1.3, the other at 2.3
    spares.drop("dmm")
    await pause(1.0)
    assert [child.closed for child in starter.made] == [False, True]
    await spares.aclose()


@virtual_time
async def test_close_while_a_spare_is_made_waits_for_nothing_and_keeps_nothing() -> None:
    starter = FakeStarter(takes_s=1.0)
    spares = spares_of(starter)
    spares.start()
    await pause(0.5)
    await spares.aclose()
    await spares.aclose()
    await pause(5)
    assert starter.made == []


@virtual_time
async def test_take_without_start_makes_a_worker_and_keeps_no_spare() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    taken = await spares.take("dmm", ["pymeasure"], timeout_s=1)
    await pause(5)
    assert starter.made == [taken]
    await spares.aclose()


def test_delay_grows_to_a_minute_and_no_further() -> None:
    assert [refill_delay_s(n) for n in (0, 1, 2)] == pytest.approx([0.3, 0.6, 1.2])
    assert refill_delay_s(10_000) == LONGEST_REFILL_S


@virtual_time
async def test_a_spare_that_dies_or_cannot_be_made_is_a_line_and_counted() -> None:
    starter = FakeStarter()
    spares = spares_of(starter)
    spares.start({"dmm": ["pymeasure"]})
    await pause(5)
    said: list[dict[str, Any]] = []
    deaf = listen_to_log(lambda _, event: said.append(dict(event)))
    try:
        starter.fails = 1
        starter.made[1].die()
        await pause(5)
    finally:
        deaf()
        await spares.aclose()
    assert spares.died == 1
    assert [(line["event"], line["worker"]) for line in said] == [
        ("a spare worker died", "dmm"), ("no spare worker could be made", "dmm"),
    ]  # fmt: skip
    assert (said[0]["lived_s"], said[1]["error"]) == (pytest.approx(4.7, abs=0.5), "none today")
