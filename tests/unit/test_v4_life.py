"""How actors begin and end, whatever their hooks and handlers do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from duodaq.clock import pause
from duodaq.errors import DeliveryError, LifecycleError, StoppedError
from duodaq.model import Fate, Outcome
from duodaq.testing import run_virtual, virtual_time
from duodaq.v4 import Actor, ActorState, ActorSystem, Finish, LinkNotice, RestartPolicy, StopReason, Supervisor, handler

FOREVER_S = 1e9
FREE = asyncio.Event()


class Lived(Actor):
    """Writes down its life; each hook can be told to take its time."""

    def __init__(self, log: list[Any], start_s: float = 0.0, stop_s: float = 0.0, fail_start: bool = False) -> None:
        self.log, self.start_s, self.stop_s, self.fail_start = log, start_s, stop_s, fail_start

    async def on_start(self) -> None:
        self.log.append("starting")
        await pause(self.start_s)
        if self.fail_start:
            raise OSError("no such device")
        self.log.append("started")

    async def on_stop(self, reason: StopReason) -> None:
        self.log.append(reason)
        await pause(self.stop_s)
        self.log.append("closed")

    async def on_link(self, notice: LinkNotice) -> None:
        self.log.append(notice)

    @handler(float)
    async def work(self, seconds: float) -> str:
        try:
            await pause(seconds)
        except asyncio.CancelledError:
            self.log.append("cut")
            raise
        self.log.append("worked")
        return "worked"

    @handler(str)
    async def defy(self, what: str) -> str:
        while True:
            try:
                await pause(FOREVER_S)
            except asyncio.CancelledError:
                if what == "too late" or FREE.is_set():
                    return what

    @handler(bytes)
    def fail(self, what: bytes) -> None:
        raise ValueError(what)


@virtual_time
async def test_spawn_returns_when_on_start_is_done():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log, 5.0)
    assert log == ["starting", "started"]
    assert ref.state is ActorState.RUNNING
    await system.stop()
    assert log[2:] == [StopReason.STOPPED, "closed"]


@virtual_time
async def test_a_failed_start_is_raised_to_who_spawned_it_and_cleaned_up():
    system, log = ActorSystem(), []
    with pytest.raises(OSError, match="no such device"):
        await system.spawn(Lived, log, 0.0, 0.0, True, name="a")
    assert log == ["starting", StopReason.START_FAILED, "closed"]
    assert "a" not in system.registry
    assert await system.spawn(Lived, log, name="a")
    await system.stop()


@virtual_time
async def test_a_factory_that_raises_fails_the_spawn():
    def factory() -> Actor:
        raise ImportError("no driver")

    system = ActorSystem()
    with pytest.raises(ImportError, match="no driver"):
        await system.spawn(factory)
    assert len(system.registry) == 0
    await system.stop()


@virtual_time
async def test_on_start_has_a_limit():
    system, log = ActorSystem(), []
    with pytest.raises(LifecycleError, match="on_start did not end within 2 s"):
        await system.spawn(Lived, log, FOREVER_S, start_timeout_s=2)
    assert log == ["starting", StopReason.START_FAILED, "closed"]
    assert system.now_s() < 3
    await system.stop()


@virtual_time
async def test_messages_sent_during_on_start_wait_for_its_end():
    system, log = ActorSystem(), []
    spawning = asyncio.ensure_future(system.spawn(Lived, log, 2.0, name="slow"))
    await pause(1)
    assert await system.registry.lookup("slow").ask(0.5) == "worked"
    await spawning
    assert log == ["starting", "started", "worked"]
    await system.stop()


@virtual_time
async def test_a_kill_during_on_start_ends_the_spawn():
    system, log = ActorSystem(), []
    spawning = asyncio.ensure_future(system.spawn(Lived, log, FOREVER_S, name="slow"))
    await pause(1)
    waiting = asyncio.ensure_future(system.registry.lookup("slow").ask(1.0))
    await pause(1)
    report = await system.registry.lookup("slow").kill()
    for doomed in (spawning, waiting):
        with pytest.raises(StoppedError):
            await doomed
    assert log == ["starting", StopReason.KILLED, "closed"]
    assert report.component == "v4.slow"
    assert system.now_s() < 3
    await system.stop()


@virtual_time
async def test_a_cancelled_spawn_ends_what_it_had_begun():
    system, log = ActorSystem(), []
    spawning = asyncio.ensure_future(system.spawn(Lived, log, FOREVER_S, 1.0))
    await pause(1)
    spawning.cancel()
    await asyncio.wait((spawning,))
    assert spawning.cancelled()
    assert log == ["starting", StopReason.CANCELLED, "closed"]
    assert len(system.registry) == 0
    await system.stop()


@virtual_time
async def test_stop_lets_what_was_accepted_complete_and_refuses_the_rest():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log)
    accepted = [asyncio.ensure_future(ref.ask(0.5)) for _ in range(3)]
    await pause(0.1)
    stopping = asyncio.ensure_future(ref.stop(10))
    await pause(0.1)
    assert ref.state is ActorState.STOPPING
    with pytest.raises(StoppedError):
        await ref.ask(0.5)
    assert await asyncio.gather(*accepted) == ["worked"] * 3
    assert (await stopping).outcome is Outcome.CLEAN
    assert log[-2:] == [StopReason.STOPPED, "closed"]


@virtual_time
async def test_stop_forces_a_handler_that_never_returns_and_says_what_it_was():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log, name="stuck")
    in_hand = asyncio.ensure_future(ref.ask(FOREVER_S, timeout_s=1000))
    await pause(0.1)
    waiting = asyncio.ensure_future(ref.ask(1.0, timeout_s=1000))
    begun = system.now_s()
    report = await ref.stop(2)
    assert system.now_s() - begun <= 2
    assert (report.outcome, report.why) == (Outcome.FORCED, "still busy with float when its time was up")
    with pytest.raises(StoppedError) as caught:
        await in_hand
    assert caught.value.fate == Fate.UNKNOWN
    with pytest.raises(StoppedError) as caught:
        await waiting
    assert caught.value.fate == Fate.NOT_DONE
    assert log[-3:] == ["cut", StopReason.STOPPED, "closed"]


@virtual_time
async def test_kill_cuts_what_is_in_hand_and_ends_what_waits():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log)
    in_hand = asyncio.ensure_future(ref.ask(FOREVER_S))
    await pause(0.1)
    waiting = asyncio.ensure_future(ref.ask(1.0))
    await ref.tell(1.5)
    report = await ref.kill()
    with pytest.raises(DeliveryError) as caught:
        await in_hand
    assert caught.value.fate == Fate.UNKNOWN
    with pytest.raises(DeliveryError) as caught:
        await waiting
    assert caught.value.fate == Fate.NOT_DONE
    assert [(letter.message, letter.fate) for letter in system.dead_letters] == [(1.5, Fate.NOT_DONE)]
    assert report.outcome is Outcome.FORCED
    assert log[-3:] == ["cut", StopReason.KILLED, "closed"]


@virtual_time
async def test_on_stop_that_hangs_is_forced_within_the_budget():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log, 0.0, FOREVER_S)
    begun = system.now_s()
    report = await ref.stop(2)
    assert system.now_s() - begun <= 2
    assert (report.outcome, "on_stop did not end" in report.why) == (Outcome.FORCED, True)


@virtual_time
async def test_links_are_told_even_if_on_stop_hangs():
    system, log = ActorSystem(), []
    watcher = await system.spawn(Lived, log, name="watcher")
    ref = await system.spawn(Lived, [], 0.0, FOREVER_S, stop_timeout_s=100, links=(watcher,))
    killing = asyncio.ensure_future(ref.kill())
    await pause(1)
    assert log[-1] == LinkNotice(ref, StopReason.KILLED, None, final=True)
    assert not killing.done()
    await killing
    await system.stop()


@virtual_time
async def test_a_kill_hurries_a_stop_that_waits():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log)
    in_hand = asyncio.ensure_future(ref.ask(FOREVER_S, timeout_s=FOREVER_S))
    await pause(0)
    stopping = asyncio.ensure_future(ref.stop(1000))
    await pause(1)
    await ref.kill()
    assert system.now_s() < 2
    assert (await stopping).outcome is Outcome.FORCED
    with pytest.raises(StoppedError):
        await in_hand


@virtual_time
async def test_stopping_twice_is_stopping_once():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log)
    one, two = await asyncio.gather(ref.stop(), ref.stop())
    assert one == two == await ref.kill()
    assert log.count("closed") == 1


@virtual_time
async def test_a_handler_that_answers_a_cut_is_late():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log)
    in_hand = asyncio.ensure_future(ref.ask("too late"))
    await pause(0)
    await ref.kill()
    with pytest.raises(StoppedError):
        await in_hand
    assert ref.metrics.late == 1


@virtual_time
async def test_a_handler_that_defies_cancellation_is_reported_leaked_in_time():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log, name="rebel")
    in_hand = asyncio.ensure_future(ref.ask("for ever"))
    await pause(0)
    begun = system.now_s()
    (report,) = await system.stop(2)
    assert system.now_s() - begun <= 2
    assert report.outcome is Outcome.LEAKED
    assert system.leaked == ("rebel",)
    assert log[-2:] == [StopReason.STOPPED, "closed"]
    with pytest.raises(StoppedError):
        await in_hand
    FREE.set()  # let it go, so that the test leaves nothing behind
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await pause(0)
    assert system.leaked == ()


@virtual_time
async def test_a_system_with_many_that_hang_stops_within_its_budget():
    system = ActorSystem()
    refs = [await system.spawn(Lived, [], 0.0, FOREVER_S, name=f"a{n}") for n in range(20)]
    asks = [asyncio.ensure_future(ref.ask(FOREVER_S, timeout_s=FOREVER_S)) for ref in refs]
    await pause(0)
    begun = system.now_s()
    reports = await system.stop(3)
    assert system.now_s() - begun <= 3
    assert [report.component for report in reports] == [f"v4.a{n}" for n in range(20)]
    assert {report.outcome for report in reports} == {Outcome.FORCED}
    await asyncio.wait(asks)
    assert all(isinstance(ask.exception(), StoppedError) for ask in asks)


@virtual_time
async def test_a_stopping_system_spawns_nothing():
    system = ActorSystem()
    await system.stop()
    with pytest.raises(LifecycleError, match="is stopping"):
        await system.spawn(Lived, [])


@virtual_time
async def test_names_are_unique_among_the_living():
    system = ActorSystem()
    ref = await system.spawn(Lived, [], name="one")
    assert system.registry.lookup("one") is ref
    with pytest.raises(LifecycleError, match="there already"):
        await system.spawn(Lived, [], name="one")
    await ref.stop()
    assert system.registry.get("one") is None
    with pytest.raises(LifecycleError, match="no actor is called"):
        system.registry.lookup("one")
    await system.spawn(Lived, [], name="one")
    await system.stop()


def test_a_loop_that_shuts_down_ends_an_actor_at_work_as_cancelled():
    log: list[Any] = []

    async def forgetful() -> None:
        system = ActorSystem()
        ref = await system.spawn(Lived, log)
        asker = asyncio.ensure_future(ref.ask(FOREVER_S))
        await pause(0.1)
        worker = next(task for task in asyncio.all_tasks() if task.get_name() == ref.name)
        worker.cancel()
        with pytest.raises(DeliveryError) as caught:
            await asker
        assert caught.value.fate == Fate.UNKNOWN
        await asyncio.wait((worker,))
        await system.stop()

    run_virtual(forgetful())
    assert log == ["starting", "started", "cut", StopReason.CANCELLED, "closed"]


def test_a_worker_cancelled_before_its_first_step_leaves_no_actor_half_alive():
    log: list[Any] = []

    async def hasty() -> None:
        system = ActorSystem()
        ref = await system.spawn(Lived, log)
        asker = asyncio.ensure_future(ref.ask(1.0))
        await pause(0)
        next(task for task in asyncio.all_tasks() if task.get_name() == ref.name).cancel()
        with pytest.raises(StoppedError) as caught:
            await asker
        assert caught.value.fate == Fate.NOT_DONE
        await system.stop()

    run_virtual(hasty())
    assert log == ["starting", "started", StopReason.CANCELLED, "closed"]


class Finishing(Lived):
    @handler(int)
    async def finish(self, number: int) -> None:
        raise Finish(number)


@pytest.mark.parametrize(("kind", "state", "starts"), [("transient", "stopped", 1), ("permanent", "running", 2)])
@virtual_time
async def test_an_actor_may_finish_by_itself_and_only_a_permanent_one_comes_back(kind: Any, state: str, starts: int):
    told: list[Any] = []
    system, log = ActorSystem(), []
    ref = await system.spawn(
        Finishing, log, restart=RestartPolicy(kind), supervisor=Supervisor(on_escalate=told.append)
    )
    assert await ref.ask(3) == 3
    await pause(1)
    assert (ref.state, log.count("started"), told) == (state, starts, [])
    assert log.count("closed") == 1
    await system.stop()


@virtual_time
async def test_a_stop_keeps_its_budget_while_a_recovery_hangs_in_on_stop():
    system, log = ActorSystem(), []
    ref = await system.spawn(Lived, log, 0.0, FOREVER_S, stop_timeout_s=100)
    await ref.tell(b"crash")
    await pause(1)
    begun = system.now_s()
    (report,) = await system.stop(2)
    assert system.now_s() - begun <= 2
    assert (report.outcome, "still under way" in report.why) == (Outcome.FORCED, True)
    assert log.count("closed") == 0


@virtual_time
async def test_a_stop_keeps_its_budget_while_a_start_is_being_undone():
    system, log = ActorSystem(), []
    spawning = asyncio.ensure_future(system.spawn(Lived, log, FOREVER_S, FOREVER_S, stop_timeout_s=100))
    await pause(1)
    begun = system.now_s()
    await system.stop(2)
    assert system.now_s() - begun <= 2
    with pytest.raises(StoppedError):
        await spawning
    assert log == ["starting", StopReason.STOPPED]


@virtual_time
async def test_a_handler_that_would_wait_for_its_own_end_is_told_what_to_do_instead():
    class Weary(Actor):
        async def receive(self, message: str) -> None:
            await self.ref.stop()

    system = ActorSystem()
    ref = await system.spawn(Weary)
    with pytest.raises(LifecycleError, match="raising Finish"):
        await ref.ask("end")
    assert ref.state is ActorState.RUNNING
    await system.stop()
