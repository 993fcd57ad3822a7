"""Who is restarted, how soon, how often, and what becomes of the mail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from duodaq.clock import pause
from duodaq.errors import RestartingError, StoppedError
from duodaq.model import Fate
from duodaq.testing import virtual_time
from duodaq.v4 import (
    Actor,
    ActorRef,
    ActorState,
    ActorSystem,
    Escalation,
    LinkNotice,
    RestartPolicy,
    StopReason,
    Supervisor,
    handler,
)


class Crash:
    pass


class Member(Actor):
    def __init__(self, log: list[Any], mark: str = "", fail_starts: list[bool] | None = None) -> None:
        self.log, self.mark, self.fail_starts = log, mark, fail_starts

    async def on_start(self) -> None:
        if self.fail_starts and self.fail_starts.pop(0):
            raise OSError("gone")
        self.log.append(f"+{self.name}")

    async def on_stop(self, reason: StopReason) -> None:
        self.log.append(f"-{self.name}")

    async def on_link(self, notice: LinkNotice) -> None:
        self.log.append((notice.ref.name, notice.reason, notice.final))

    @handler(Crash, urgent=True)
    async def crash(self, message: Crash) -> None:
        raise ValueError("crash")

    @handler(float)
    async def hold(self, seconds: float) -> str:
        await pause(seconds)
        return "held"

    @handler(int, idempotent=True)
    async def read(self, number: int) -> int:
        self.log.append(number)
        return number

    @handler(str, moves=True)
    async def move(self, where: str) -> str:
        self.log.append(where)
        return where

    async def work(self) -> None:
        await pause(1)
        raise ValueError("beside")

    @handler(bytes)
    def work_beside(self, _: bytes) -> None:
        self.run_beside(self.work())


async def settled(ref: ActorRef) -> None:
    """Wait until it is up again, or over."""
    while ref.state is ActorState.RESTARTING:
        await pause(0.01)


async def group_of_three(supervisor: Supervisor, **options: Any) -> tuple[ActorSystem, list[ActorRef], list[Any]]:
    system, log = ActorSystem(), list[Any]()
    refs = [await system.spawn(Member, log, name=name, supervisor=supervisor, **options) for name in "abc"]
    log.clear()
    return system, refs, log


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one-for-one", ["-b", "+b"]),
        ("one-for-all", ["-c", "-b", "-a", "+a", "+b", "+c"]),
        ("rest-for-one", ["-c", "-b", "+b", "+c"]),
    ],
)
@virtual_time
async def test_the_strategy_takes_a_group_down_in_reverse_and_up_in_order(strategy: Any, expected: list[str]):
    system, refs, log = await group_of_three(Supervisor(strategy))
    await refs[1].tell(Crash())
    await pause(0.1)
    assert log == expected
    assert [ref.state for ref in refs] == [ActorState.RUNNING] * 3
    await system.stop()


@virtual_time
async def test_across_a_restart_reads_go_on_moves_are_not_done_and_what_was_in_hand_is_unknown():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log)
    in_hand = asyncio.ensure_future(ref.ask(100.0, timeout_s=200))
    await pause(0)
    reading, moving = asyncio.ensure_future(ref.ask(7)), asyncio.ensure_future(ref.ask("left"))
    await ref.tell("told left")
    await ref.tell(Crash())
    with pytest.raises(RestartingError) as caught:
        await in_hand
    assert caught.value.fate == Fate.UNKNOWN
    with pytest.raises(RestartingError) as caught:
        await moving
    assert caught.value.fate == Fate.NOT_DONE
    assert await reading == 7
    assert "left" not in log
    assert [(letter.message, letter.fate) for letter in system.dead_letters][1:] == [("told left", Fate.NOT_DONE)]
    await system.stop()


@virtual_time
async def test_a_policy_may_requeue_moves():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, restart=RestartPolicy(requeue=True))
    in_hand = asyncio.ensure_future(ref.ask(100.0))
    await pause(0)
    moving = asyncio.ensure_future(ref.ask("left"))
    await ref.tell(Crash())
    assert await moving == "left"
    await asyncio.wait((in_hand,))
    assert isinstance(in_hand.exception(), RestartingError)
    await system.stop()


@virtual_time
async def test_while_it_restarts_reads_wait_and_moves_are_refused():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, restart=RestartPolicy(backoff=lambda _: 5.0))
    await ref.tell(Crash())
    await pause(1)
    assert ref.state is ActorState.RESTARTING
    with pytest.raises(RestartingError) as caught:
        await ref.ask("left")
    assert caught.value.fate == Fate.NOT_DONE
    assert await ref.ask(3, timeout_s=10) == 3
    assert system.now_s() == pytest.approx(5)
    await system.stop()


@virtual_time
async def test_the_first_restart_is_at_once_and_the_next_back_off():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log)
    moments: list[float] = []
    for _ in range(3):
        begun = system.now_s()
        await ref.tell(Crash())
        await pause(0)
        await ref.ask(1)
        moments.append(round(system.now_s() - begun, 3))
    assert moments == [0.0, 0.1, 0.2]
    assert ref.metrics.restarts == 3
    await system.stop()


@virtual_time
async def test_beyond_the_limit_the_failure_escalates():
    told: list[Escalation] = []
    supervisor = Supervisor(on_escalate=told.append)
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, name="m", supervisor=supervisor, restart=RestartPolicy(limit=1, window_s=60))
    watcher = await system.spawn(Member, [], name="w")
    for _ in range(2):
        await ref.tell(Crash())
        await settled(ref)
        await pause(0.1)
    assert ref.state is ActorState.FAILED
    (escalation,) = told
    assert (escalation.ref, escalation.ended, str(escalation.error)) == (ref, ("m",), "crash")
    assert "1 restarts within 60 s" in escalation.why
    with pytest.raises(StoppedError):
        await ref.ask(1)
    assert "m" not in system.registry
    assert watcher.state is ActorState.RUNNING
    assert log.count("-m") == 2
    await system.stop()


@virtual_time
async def test_restarts_outside_the_window_are_forgotten():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, restart=RestartPolicy(limit=1, window_s=10))
    for _ in range(5):
        await ref.tell(Crash())
        await pause(11)
        assert ref.state is ActorState.RUNNING
    await system.stop()


@virtual_time
async def test_when_a_group_gives_up_all_who_would_be_restarted_end_and_escalation_is_last():
    log_at: list[list[Any]] = []

    async def escalated(escalation: Escalation) -> None:
        log_at.append([*log, escalation.ended])

    system, refs, log = await group_of_three(Supervisor("rest-for-one", escalated), restart=RestartPolicy("never"))
    await refs[1].tell(Crash())
    await pause(0.1)
    assert log_at == [["-c", "-b", ("c", "b")]]
    assert [ref.state for ref in refs] == [ActorState.RUNNING, ActorState.FAILED, ActorState.FAILED]
    await system.stop()


@virtual_time
async def test_escalation_climbs_to_the_parent_even_past_a_callback_that_fails():
    told: list[Escalation] = []

    def broken(_: Escalation) -> None:
        raise RuntimeError("callback")

    supervisor = Supervisor(on_escalate=broken, parent=Supervisor(on_escalate=told.append))
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, supervisor=supervisor, restart=RestartPolicy("never"))
    await ref.tell(Crash())
    await pause(0.1)
    assert [escalation.ref for escalation in told] == [ref]
    await system.stop()


@virtual_time
async def test_a_start_that_fails_during_a_restart_counts_as_a_failure():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, "", [False, True, True, False], name="m")
    await ref.tell(Crash())
    assert await ref.ask(1) == 1
    assert system.now_s() == pytest.approx(0.3)
    assert ref.metrics.restarts == 3
    await system.stop()


@virtual_time
async def test_two_crashes_at_once_in_a_group_are_one_recovery():
    system, refs, log = await group_of_three(Supervisor("one-for-all"))
    refs[0].tell_nowait(Crash())
    refs[2].tell_nowait(Crash())
    await pause(1)
    assert log == ["-c", "-b", "-a", "+a", "+b", "+c"]
    assert [ref.state for ref in refs] == [ActorState.RUNNING] * 3
    await system.stop()


@virtual_time
async def test_a_stop_during_back_off_is_final_and_prompt():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, restart=RestartPolicy(backoff=lambda _: 100.0))
    await ref.tell(Crash())
    await pause(1)
    reading = asyncio.ensure_future(ref.ask(1, timeout_s=1000))
    await pause(0)
    await ref.stop(5)
    with pytest.raises(StoppedError) as caught:
        await reading
    assert caught.value.fate == Fate.NOT_DONE
    await pause(200)
    assert ref.state is ActorState.STOPPED
    assert system.now_s() < 210
    await system.stop()


@virtual_time
async def test_a_member_stopped_while_its_group_rests_stays_down():
    system, refs, log = await group_of_three(Supervisor("one-for-all"), restart=RestartPolicy(backoff=lambda _: 5.0))
    await refs[0].tell(Crash())
    await pause(1)
    await refs[1].stop()
    await pause(10)
    assert [ref.state for ref in refs] == [ActorState.RUNNING, ActorState.STOPPED, ActorState.RUNNING]
    assert log == ["-c", "-b", "-a", "+a", "+c"]
    await system.stop()


@virtual_time
async def test_work_beside_that_fails_crashes_its_actor():
    system, log = ActorSystem(), []
    ref = await system.spawn(Member, log, name="m")
    await ref.ask(b"")
    await pause(2)
    assert log == ["+m", "-m", "+m"]
    await system.stop()


@virtual_time
async def test_links_learn_of_a_restart_and_stay_and_of_an_end_and_go():
    system, log = ActorSystem(), []
    watcher = await system.spawn(Member, log, name="w")
    ref = await system.spawn(Member, [], name="m", restart=RestartPolicy(limit=1), links=(watcher,))
    log.clear()
    await ref.tell(Crash())
    await pause(1)
    await ref.tell(Crash())
    await pause(1)
    assert log == [("m", StopReason.CRASHED, False), ("m", StopReason.CRASHED, True)]
    await system.stop()


@virtual_time
async def test_linking_a_dead_actor_notifies_at_once():
    system, log = ActorSystem(), []
    watcher, ref = await system.spawn(Member, log, name="w"), await system.spawn(Member, [], name="m")
    await ref.stop()
    watcher.link(ref)
    await pause(0)
    await pause(0)
    assert log[1:] == [("m", StopReason.STOPPED, True)]
    await system.stop()


@virtual_time
async def test_links_are_mutual_and_can_be_undone():
    system, log = ActorSystem(), []
    one, two = await system.spawn(Member, log, name="one"), await system.spawn(Member, log, name="two")
    log.clear()
    one.link(two)
    two.unlink(one)
    await two.stop()
    await pause(0.1)
    assert log == ["-two"]
    await system.stop()
