"""The task of one instrument: its queue, its thread, its state, its polls, and what happens when any of them fails.

Rules for whoever edits this:

* One thing at a time is in the thread. Only `_run` (and what it awaits) submits to it; everybody else uses the queue.
* Nothing here waits for the driver without noticing its deadline; a caller is freed by its own timer, whatever `_run`
  is doing.
* A call that does not return leaves the instrument Hung and its handles revoked. The thread is never replaced while a
  call is in it; when it returns, a new driver is constructed in it.
* The state changes through the life-cycle table only.
* `aclose` keeps to its limit: grace for what is in hand, then revocation; then the thread is left behind, and named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from duodaq.clock import Deadline, Deadlines, monotonic_s
from duodaq.dataplane import Hub
from duodaq.errors import (
    ConfigError,
    DuodaqError,
    LifecycleError,
    PortLostError,
    RefusedError,
    ReplyTimeoutError,
    RestartingError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    ChannelInfo,
    ComponentReport,
    Fate,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Measurement,
    Outcome,
    Parameters,
    Recover,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.telemetry import get_logger, told
from duodaq.v2._calls import CallResult, DriverCalls
from duodaq.v2._fault import is_lost, is_recoverable, typed_error
from duodaq.v2._figures import Figures
from duodaq.v2._host import DriverHost, LineMaker
from duodaq.v2._member import Member
from duodaq.v2._polling import PolledChannel, Polling
from duodaq.v2._publisher import ReadingPublisher, Sequences
from duodaq.v2._reading import Reading
from duodaq.v2._rules import connect_deadline_s, deadline_s
from duodaq.v2._schedule import Reconnection
from duodaq.v2._settings import WatchedSettings
from duodaq.v2._state import OnChange, StateKeeper
from duodaq.v2._work import Work, WorkQueue

RECONNECT_AFTER = 3
"""So many readings of one channel in a row must fail before the driver is connected anew."""

_LOG = get_logger("v2.instrument")
_S = InstrumentState


@dataclass(frozen=True, slots=True)
class Services:
    """What an instrument needs of the lab."""

    lines: LineMaker
    hub: Hub[Measurement]
    parameters: Parameters
    sequences: Sequences
    latched: Callable[[], bool]
    on_change: OnChange
    changed: Callable[[], None]
    """Called whenever an instrument or a channel has something else to say of itself."""


class Instrument:
    """One hosted driver. Everything here is called on the runtime's loop, except the properties."""

    def __init__(self, definition: InstrumentDefinition, services: Services) -> None:
        self.definition = definition
        self.queue = WorkQueue()
        self.figures = Figures()
        self.deadlines = Deadlines()
        self.polling = Polling(definition.polls)
        self._services = services
        self._states = StateKeeper(definition, services.on_change, services.changed)
        self._settings = WatchedSettings(definition, services.parameters)
        self._publisher = ReadingPublisher(definition.id, services.hub, services.sequences, self.figures)
        self._link = Reconnection()
        self._host: DriverHost | None = None
        self._calls: DriverCalls | None = None
        self._task: asyncio.Task[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._work: Work | None = None
        self._closing = False
        self._retired = ""
        self._polled_last = False
        self._was_connected = False
        self._stop_epoch = 0
        self._line_lost = False

    @property
    def status(self) -> InstrumentStatus:
        """What is known of it now; any thread may ask."""
        return self._states.status

    @property
    def members(self) -> tuple[Member, ...]:
        """What of the driver can be read, set and called; empty before it was first connected."""
        return () if self._host is None else self._host.members

    @property
    def in_hand(self) -> str:
        """The call that is in the driver now; empty if none."""
        return "" if self._calls is None else self._calls.in_hand

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Its channels, in the order of the stanza."""
        return tuple(
            ChannelInfo(self.definition.id, c.definition.channel, c.unit, c.kind, "v2")
            for c in self.polling.channels.values()
        )

    def metrics(self) -> dict[str, Any]:
        """Its figures as plain values."""
        polls = {
            name: {"done": c.done, "failed": c.failed, "skipped": c.schedule.skipped}
            for name, c in self.polling.channels.items()
        }
        queue = {"waiting": len(self.queue), "high_water": self.queue.high_water, "capacity": self.queue.capacity}
        return {**self.figures.to_dict(), "in_hand": self.in_hand, "queue": queue, "polls": polls,
                "restarts": self.status.restarts}  # fmt: skip

    async def start(self) -> None:
        """Start its thread and task, and wait until the driver is connected.

        Raises:
            LifecycleError: It runs already, or a former thread of it has not returned.
            ConfigError: The stanza is wrong; trying again will not help.
            DuodaqError: It could not be connected. It stays in Error and is tried again.
            StoppedError: It was retired. Nothing was begun.
        """
        if self._retired:
            raise StoppedError(f"it is not started again: {self._retired}", instrument=self.definition.id)
        if self._task is not None or (self._calls is not None and self._calls.thread.busy):
            raise LifecycleError(f"it is {self.status.state} already", instrument=self.definition.id)
        self._closing = self._was_connected = False
        self._stop_epoch, self._link = self._stop_epoch + 1, Reconnection()
        self._calls = DriverCalls(
            self.definition.id, self.definition.kill_after_s, self.figures, self._hang, self.deadlines
        )
        self._started = asyncio.get_running_loop().create_future()
        self._started.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._states.change(_S.CONNECTING)
        self._task = asyncio.create_task(self._run(), name=f"v2.{self.definition.id}")
        await asyncio.shield(self._started)

    async def restart(self, timeout_s: float) -> None:
        """Close it within `timeout_s`, and start it again.

        Raises:
            LifecycleError: It is hung, or its driver does not return. It is connected anew when the call returns.
            DuodaqError: It could not be connected again; see `start`.
        """
        if self._recovers_by_itself:
            raise self._hung()
        await self.aclose(timeout_s, "restarting")
        if self.status.state is not _S.HUNG:
            await self.start()
        elif self._calls is not None:
            self._revival = asyncio.create_task(self._revive(self._calls), name=f"v2.{self.definition.id}.revival")
            raise self._hung()

    def accept(self, work: Work) -> None:
        """Queue `work`, which has a place; refuse it at once while nothing could take it in hand."""
        if self._recovers_by_itself:
            work.fail(self._hung())
        elif self._task is None or self._closing:
            work.fail(StoppedError(f"it is {self.status.state}", fate=Fate.NOT_DONE))
        else:
            work.busy_with = self._busy_with
            self.queue.put(work)

    def line_lost(self) -> None:
        """Its line is lost, and perhaps what the driver has set with it: the driver is connected anew, also if idle."""
        self._line_lost = True
        self.queue.wake()

    def end_moving(self, reason: str, *, whole: bool = True) -> int:
        """End every waiting command that moves or emits, as not done; how many. `whole`: all of it is stopped."""
        self._stop_epoch += 1
        if whole:
            self._settings.note_stop()
        return self.queue.end(lambda: StoppedError(reason, fate=Fate.NOT_DONE), moving_only=True)

    def retire(self, reason: str) -> None:
        """Never start it again, whoever was about to: it is being removed, or everything ends."""
        self._retired = reason

    async def aclose(self, timeout_s: float, reason: str = "stopped") -> ComponentReport:
        """Close the driver and end task and thread within `timeout_s`. Several may do so at once.

        What is in hand may complete; in the last fifth of the time its handles are revoked and its caller told
        "unknown"; a thread that does not return even then is left behind, and reported as leaked.

        Cancellation: what is in hand is cut off at once, as at the end of the time.
        """
        component, begun_s, limit = f"v2.{self.definition.id}", monotonic_s(), Deadline(timeout_s)
        await self._end_revival()
        task, calls = self._task, self._calls
        if task is None or calls is None:
            if calls is not None and calls.thread.busy:
                return ComponentReport(component, Outcome.LEAKED, self.status.message)
            return ComponentReport(component, Outcome.CLEAN)
        hung = self.status.state is _S.HUNG
        self._closing = True
        self._states.change(_S.SHUTTING_DOWN, reason)
        self.queue.end(lambda: StoppedError(reason, fate=Fate.NOT_DONE))
        self.queue.wake()
        grace_s = 0.0 if hung else timeout_s - min(1.0, timeout_s / 5)
        why = ""
        try:
            if not await _ends(task, grace_s):
                why = self._cut(calls, grace_s, hung, reason)
                if not await _ends(task, limit.left_s - 0.02):
                    task.cancel()
                    await _ends(task, 1.0)
            calls.thread.close()
            gone = await calls.thread.ended(limit.left_s if calls.thread.busy else max(limit.left_s, 0.5))
        except asyncio.CancelledError:
            self._cut(calls, monotonic_s() - begun_s, hung, reason)
            task.cancel()
            calls.thread.close()
            raise
        if self._task is not task:  # another has closed it meanwhile, and perhaps started it again
            return ComponentReport(component, Outcome.CLEAN, "", monotonic_s() - begun_s)
        self._task = None
        self._services.parameters.mark_stale("v2", self.definition.id)
        self._states.change(_S.DISCONNECTED if gone else _S.HUNG, why)
        outcome = Outcome.LEAKED if not gone else Outcome.FORCED if why else Outcome.CLEAN
        return ComponentReport(component, outcome, why, monotonic_s() - begun_s)

    async def _revive(self, calls: DriverCalls) -> None:
        """Make up for a restart that its driver did not allow, as soon as its thread has ended."""
        await calls.thread.ended(None)
        try:
            await self.start()
        except DuodaqError as error:
            _LOG.warning("not restarted when its call returned", instrument=self.definition.id, error=str(error))

    async def _end_revival(self) -> None:
        revival, self._revival = self._revival, None
        if revival is not None:
            revival.cancel()
            await asyncio.gather(revival, return_exceptions=True)

    @property
    def _recovers_by_itself(self) -> bool:
        """Whether it is hung, and its task or a revival waits for the call to return."""
        waits = not self._closing if self._task is not None else self._revival is not None
        return waits and self.status.state is _S.HUNG

    def _hung(self) -> LifecycleError:
        return LifecycleError(
            f"it is hung: {self.status.message}",
            left="it recovers by itself when the call returns",
            instrument=self.definition.id,
        )

    def _busy_with(self) -> str:
        """What the driver is in, for those who wait."""
        return "" if self._calls is None else self._calls.busy_with

    # ── the task ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        try:
            await self._connect(first=True)
            while not self._closing:
                await self._step()
            await self._disconnect()
        except Exception as error:
            _LOG.exception("instrument task failed", instrument=self.definition.id)
            self._link.lost(0.0, by=None, recoverable=False)
            self._tell_started(LifecycleError(f"its task failed: {error!r}", instrument=self.definition.id))
            self._to(_S.ERROR, f"its task failed: {error!r}", recoverable=False)
            raise
        finally:
            self._closing = True
            self.queue.end(lambda: StoppedError("its task has ended", fate=Fate.NOT_DONE))
            self.queue.rest()
            self._tell_started(StoppedError("it was stopped before it was connected", instrument=self.definition.id))

    async def _step(self) -> None:
        now_s = self._now_s
        if self._line_lost and self._link.up:
            self._lose(PortLostError("its line was lost", port=self.definition.port))
        if not self._link.up:
            await self._wait_for_reconnect(now_s)
            return
        channel = self.polling.due(now_s)
        if channel is not None and not (self._polled_last and len(self.queue)):
            self._polled_last = True
            await self._poll(channel)
            return
        self._polled_last = False
        work = await self.queue.get(self.polling.next_due_s)
        if work is not None:
            await self._carry_out(work)

    async def _wait_for_reconnect(self, now_s: float) -> None:
        if self._link.retry_at is not None and now_s >= self._link.retry_at:
            await self._connect()
            return
        work = await self.queue.get(self._link.retry_at)
        if work is None:
            return
        if isinstance(work.command, Recover):
            await self._recover(work)
        elif isinstance(work.command, StopAcquisition):
            self._stop_acquisition(work)
        else:
            work.fail(self._link.refusal(self.status.message, self._now_s))

    async def _connect(self, *, first: bool = False) -> None:
        if self._closing:
            return
        self._line_lost = False
        self._states.change(_S.CONNECTING)
        old, self._host = self._host, DriverHost(self.definition, self._services.lines)
        latched = self._services.latched()
        settings = self._settings.at_first(latched=latched) if first else self._settings.again(latched=latched)
        limit_s = connect_deadline_s(self.definition)
        result = await self._call(
            "connect",
            partial(self._host.connect_after, old, settings),
            limit_s,
            on_overdue=lambda: self._tell_started(
                ReplyTimeoutError(f"not connected within {limit_s} s", fate=Fate.UNKNOWN)
            ),
        )
        if result is None:
            return
        if result.error is not None:
            self._lose(typed_error(result.error, self.definition.id, "connect", told(result.error)))
            return
        self._link.connected()
        self.polling.expect(self._host.units)
        self._settings.connected(result.value)
        if self._was_connected:
            self._states.count_restart()
        elif self.definition.polls and self.definition.options.get("acquire", True):
            self.polling.begin(self._now_s)
        self._was_connected = True
        self.polling.forgive()
        self._ready()
        self._tell_started(None)

    async def _disconnect(self) -> None:
        host, self._host = self._host, None
        if host is not None and self._calls is not None:
            await self._calls.run("close", host.close, None)

    async def _call(
        self,
        name: str,
        call: Callable[[], Any],
        limit_s: float | None,
        *,
        work: Work | None = None,
        on_overdue: Callable[[], None] | None = None,
    ) -> CallResult | None:
        """Run a call in the thread; None if it came back only after the instrument had been given up."""
        assert self._calls is not None
        deadline_at = None if limit_s is None else self._now_s + limit_s
        context = None
        if work is not None:
            deadline_at, on_overdue, context = work.deadline_at, work.expire, work.context
        if self._host is not None:
            self._host.deadline = Deadline(None if deadline_at is None else max(0.0, deadline_at - self._now_s))
        self._work = work
        try:
            result = await self._calls.run(name, call, deadline_at, on_overdue, context)
        finally:
            self._work = None
        if not result.hung:
            return result
        self._link.broken(self._now_s)
        return None

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _carry_out(self, work: Work) -> None:
        command = work.command
        if work.moving and self._services.latched():
            work.fail(_latched())
        elif isinstance(command, StartAcquisition):
            self._start_acquisition(work)
        elif isinstance(command, StopAcquisition):
            self._stop_acquisition(work)
        elif isinstance(command, Recover):
            await self._recover(work)
        else:
            await self._drive(work)

    def _start_acquisition(self, work: Work) -> None:
        if not self.polling.channels:
            work.fail(RefusedError("it has no channel to acquire", left="add a poll to its stanza"))
            return
        if not self.polling.active:
            self.polling.begin(self._now_s)
        if self.status.state is _S.READY:
            self._to(_S.ACQUIRING)
        work.succeed(tuple(self.polling.channels))

    def _stop_acquisition(self, work: Work) -> None:
        self.polling.end()
        if self.status.state is _S.ACQUIRING:
            self._to(_S.READY)
        work.succeed(None)

    async def _recover(self, work: Work) -> None:
        if not self._link.up or self.status.state is _S.ERROR:
            await self._connect()
        if not self._link.up:
            why = f"it could not be recovered: {self.status.message}"
            work.fail(LifecycleError(why, left=self._link.outlook(self._now_s)))
        elif not self._settings.waiting:
            work.succeed(None)
        else:
            await self._apply_waiting(work)

    async def _apply_waiting(self, work: Work) -> None:
        """Somebody has said yes to the settings that were withheld when it came back."""
        assert self._host is not None
        guard = partial(self._refuse_if_stopped, self._stop_epoch)
        apply = partial(self._host.apply_and_read, dict(self._settings.waiting), guard)
        result = await self._call(work.name, apply, None, work=work)
        if result is not None and not self._failed(work, result):
            self._settings.applied(result.value)
            self._well()
            work.succeed(None)

    async def _drive(self, work: Work) -> None:
        assert self._host is not None
        guard = partial(self._refuse_if_stopped, self._stop_epoch) if work.moving else None
        result = await self._call(work.name, partial(self._host.perform, work.command, guard), None, work=work)
        self._settings.note_call(work.command, self._host.plain)
        if result is None or self._failed(work, result):
            return
        value = result.value
        if isinstance(value, Reading):
            value = await self._publisher.publish(work.channel, value, late=result.late)
        elif isinstance(work.command, SetParameter | GetParameter):
            self._settings.note(work.command, value)
        self._well()
        work.succeed(value)
        if not self._closing and (names := self._settings.to_read_after(work.command)):
            await self._read_watched(names)
            self._well()

    def _failed(self, work: Work, result: CallResult) -> bool:
        """Whether a call raised; whoever asked for it is told."""
        if result.error is None:
            return False
        error = typed_error(result.error, self.definition.id, work.name)
        work.fail(error)
        if is_lost(result.error):
            self._lose(error)
        return True

    def _refuse_if_stopped(self, epoch: int) -> None:
        if self._services.latched():
            raise _latched()
        if epoch != self._stop_epoch:
            raise StoppedError("a stop came before it began", fate=Fate.NOT_DONE)

    async def _read_watched(self, names: tuple[str, ...]) -> None:
        host = self._host
        assert host is not None
        result = await self._call("watched", partial(host.read_watched, names), self.definition.deadline_s)
        if result is not None and result.error is None:
            self._settings.read_after(result.value)
        elif result is not None and result.error is not None:
            _LOG.warning("watched settings cannot be read", instrument=self.definition.id, error=str(result.error))

    # ── polls ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _poll(self, channel: PolledChannel) -> None:
        host, poll = self._host, channel.definition
        assert host is not None
        name = poll.call or poll.read or poll.channel
        result = await self._call(name, partial(host.poll, poll), deadline_s(self.definition, name, poll.channel))
        now_s = self._now_s
        if result is None:
            channel.schedule.done(now_s)
        elif result.error is not None:
            self._poll_failed(channel, typed_error(result.error, self.definition.id, name), now_s)
        else:
            reading: Reading = result.value
            self.polling.succeeded(channel, now_s)
            if (channel.kind, channel.unit) != (reading.kind, reading.unit):
                channel.kind, channel.unit = reading.kind, reading.unit
                self._services.changed()
            measurement = await self._publisher.publish(poll.channel, reading, late=result.late)
            self._settings.note_reading(name, measurement)
            self._well()

    def _poll_failed(self, channel: PolledChannel, error: DuodaqError, now_s: float) -> None:
        self.polling.failed(channel, now_s, str(error))
        _LOG.warning("reading failed", instrument=self.definition.id, channel=channel.definition.channel,
                     in_a_row=channel.failing, error=str(error))  # fmt: skip
        hopeless = isinstance(error, RefusedError | UnsafeStateError | ConfigError)
        if is_lost(error) or (channel.failing >= RECONNECT_AFTER and not hopeless):
            self._lose(error)
        else:
            self._to(_S.ERROR, str(error))

    # ── states ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _to(self, state: InstrumentState, message: str = "", *, recoverable: bool = True) -> None:
        """Change the state, unless the end has begun, which is the last word."""
        if not self._closing:
            message = self._settings.outstanding if state in (_S.READY, _S.ACQUIRING) else message
            self._states.change(state, message, recoverable=recoverable)

    def _ready(self) -> None:
        self._to(_S.READY)
        if self.polling.active:
            self._to(_S.ACQUIRING)

    def _well(self) -> None:
        """The driver has answered."""
        self._link.well()
        if self._link.up and self.status.state is _S.ERROR and not self.polling.failing:
            self._ready()
        elif self.status.state in (_S.READY, _S.ACQUIRING) and self.status.message != self._settings.outstanding:
            self._to(self.status.state)

    def _lose(self, error: DuodaqError) -> None:
        """The device is gone, or the driver of no use: Error, and a new connection after a while."""
        recoverable = is_recoverable(error)
        self._link.lost(self._now_s, by=error, recoverable=recoverable)
        self._services.parameters.mark_stale("v2", self.definition.id)
        self._to(_S.ERROR, str(error), recoverable=recoverable)
        _LOG.error("instrument lost", instrument=self.definition.id, error=str(error), attempt=self._link.failures)
        self._tell_started(error)

    def _hang(self, name: str) -> None:
        """The call `name` has been given up."""
        message = f"{name} has not returned; given up after {self.definition.kill_after_s:g} s"
        _LOG.error("instrument hung", instrument=self.definition.id, command=name)
        if self._host is not None:
            self._host.revoke(message)
        self._to(_S.HUNG, message)
        self.queue.end(lambda: RestartingError(f"it is hung: {message}", fate=Fate.NOT_DONE))
        self._services.parameters.mark_stale("v2", self.definition.id)

    def _cut(self, calls: DriverCalls, grace_s: float, hung: bool, reason: str) -> str:
        name = calls.in_hand or "its task"
        why = f"{name} was hung" if hung else f"{name} had not returned after {grace_s:.3g} s"
        if self._work is not None:
            self._work.fail(StoppedError(f"{reason} while the driver was in it", fate=Fate.UNKNOWN))
        if self._host is not None:
            self._host.revoke(reason)
        return why

    def _tell_started(self, error: DuodaqError | None) -> None:
        if self._started is None or self._started.done():
            return
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error.about(instrument=self.definition.id))


def _latched() -> UnsafeStateError:
    return UnsafeStateError("a stop is latched", left="nothing was sent; reset it first")


async def _ends(task: asyncio.Task[None], timeout_s: float) -> bool:
    return bool((await asyncio.wait({task}, timeout=max(0.0, timeout_s)))[0])
