# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# A sabotage reaches where it hurts, and what it puts there is of no declared type.
"""What may go wrong at start and stop without anybody noticing by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from duodaq import clock
from duodaq.drivers.esp300 import Esp300Driver
from duodaq.dual import DualRuntimeManager, _shutdown, _shutdown_plan
from duodaq.model import ComponentReport, Outcome
from duodaq.ports import BlockingSession, Broker
from duodaq.testing.coexistence._sabotage import APART, FROM_THREADS, SHARED, sabotage
from duodaq.testing.coexistence._sabotages._commands import around_commands
from duodaq.v2._host import DriverHost
from duodaq.v2._instrument import Instrument
from duodaq.v2._thread import DriverThread
from duodaq.v4 import ActorSystem
from duodaq.workers import SharedPage

_START = "test_dual_runtime_startup_shutdown"
_TIME = "test_shutdown_timeout_enforcement"
_BOTH = "test_v2_and_v4_actors_concurrent"


@sabotage(_START, "v2 is live")
def v2_answers_from_memory() -> None:
    """V2 gives the last reading again and again, and asks no device."""
    asked = DriverHost.poll
    known: dict[str, Any] = {}

    def poll(self: DriverHost, wanted: Any) -> Any:
        if wanted.channel not in known:
            known[wanted.channel] = asked(self, wanted)
        return known[wanted.channel]

    DriverHost.poll = poll


@sabotage(_START, "v4 is live")
def v4_answers_from_memory() -> None:
    """V4 gives the last position again and again, and asks no device."""
    asked_position, asked_axis = Esp300Driver.read_position, Esp300Driver.read_axis
    known: dict[str, Any] = {}

    async def read_position(self: Esp300Driver, axis: str) -> Any:
        if "position" not in known:
            known["position"] = await asked_position(self, axis)
        return known["position"]

    async def read_axis(self: Esp300Driver, axis: str) -> Any:
        if "axis" not in known:
            known["axis"] = await asked_axis(self, axis)
        return known["axis"]

    Esp300Driver.read_position, Esp300Driver.read_axis = read_position, read_axis


@sabotage(_START, "order")
def v2_stops_before_v4() -> None:
    """The shutdown stops V2 first."""
    _swap_shares("v4", "v2")


@sabotage(_START, "ports last")
def ports_close_first() -> None:
    """The shutdown closes the ports under the runtimes."""
    _swap_shares("settle", "ports")


@sabotage(_START, "nothing is left", modes=SHARED)
def driver_threads_stay() -> None:
    """The thread of a driver is told nothing, and said to have ended."""

    async def ended(self: DriverThread, timeout_s: float) -> bool:
        return True

    DriverThread.close, DriverThread.ended = lambda self: None, ended


@sabotage(_START, "nothing is left", modes=APART)
def pages_of_workers_stay() -> None:
    """What a worker shared with the manager is never given back."""
    SharedPage.close = lambda self: None


@sabotage(_START, "nothing is left", modes=FROM_THREADS)
def lines_stay_open() -> None:
    """The broker says that it closed its ports."""
    Broker.aclose = _close_nothing


@sabotage(_TIME, "budget")
def steps_take_their_time() -> None:
    """Each step of the shutdown may take ten times what it should."""
    _shutdown.plan_shutdown = lambda budget_s: _shutdown_plan.plan_shutdown(10 * budget_s)
    _shutdown.allowance_s = lambda step, left_s: step.allowed_s


@sabotage(_TIME, "names v2")
def v2_calls_everything_clean() -> None:
    """V2 reports a driver that never came back as clean."""
    aclose = Instrument.aclose

    async def pretend(self: Instrument, timeout_s: float, reason: str = "stopped") -> ComponentReport:
        return _whitewash(await aclose(self, timeout_s, reason))

    Instrument.aclose = pretend


@sabotage(_TIME, "names v4")
def v4_calls_everything_clean() -> None:
    """V4 reports an actor that never ended as clean."""
    stop = ActorSystem.stop

    async def pretend(self: ActorSystem, *args: Any, **kwargs: Any) -> Any:
        return tuple(_whitewash(report) for report in await stop(self, *args, **kwargs))

    ActorSystem.stop = pretend


@sabotage(_TIME, "others are clean")
def one_refusal_condemns_all() -> None:
    """V2 revokes the handles of every driver before it closes them."""
    aclose = Instrument.aclose

    async def harsh(self: Instrument, timeout_s: float, reason: str = "stopped") -> ComponentReport:
        if self._host is not None:
            self._host.revoke(reason)
        return await aclose(self, timeout_s, reason)

    Instrument.aclose = harsh


@sabotage(_TIME, "ports are free")
def ports_stay_locked() -> None:
    """The broker says that it closed its ports."""
    Broker.aclose = _close_nothing


@sabotage(_BOTH, "overlap")
def commands_take_turns() -> None:
    """One command at a time for the whole lab."""
    command, turn = DualRuntimeManager.command, asyncio.Lock()

    async def alone(self: DualRuntimeManager, *args: Any, **kwargs: Any) -> Any:
        async with turn:
            return await command(self, *args, **kwargs)

    DualRuntimeManager.command = alone


@sabotage(_BOTH, "overlap", modes=FROM_THREADS)
def v4_waits_for_v2() -> None:
    """Commands of V4 are handed over only when V2 has had its time."""

    async def after(host: Any, command: Any) -> Any:
        if host.name == "v4":
            await clock.pause(1.5)
        return await command()

    around_commands(after)


@sabotage(_BOTH, "real work")
def sessions_answer_themselves() -> None:
    """A driver's write goes nowhere, and its read makes something up."""
    BlockingSession.write = lambda self, data: len(data)
    BlockingSession.read_until = lambda self, terminator=b"\n", timeout_s=None: b"+1.0000E-3\n"


@sabotage(_BOTH, "own answers")
def answers_go_astray() -> None:
    """Each caller gets the last answer of anybody."""
    last: list[Any] = []

    async def astray(host: Any, command: Any) -> Any:
        last.append(await command())
        return last[0]

    around_commands(astray)


def _swap_shares(one: str, other: str) -> None:
    shares = list(_shutdown_plan._SHARES)
    names = [name for name, _ in shares]
    at, to = names.index(one), names.index(other)
    shares[at], shares[to] = shares[to], shares[at]
    _shutdown_plan._SHARES = tuple(shares)


def _whitewash(report: ComponentReport) -> ComponentReport:
    return msgspec.structs.replace(report, outcome=Outcome.CLEAN, why="")


async def _close_nothing(self: Broker, timeout_s: float = 1.0) -> tuple[ComponentReport, ...]:
    return tuple(ComponentReport(f"port.{port.name}", Outcome.CLEAN) for port in self.status())
