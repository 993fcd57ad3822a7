"""One instrument of the actor runtime: its definition, its actor's address, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from duodaq.clock import Deadlines, utc_ns
from duodaq.errors import (
    ConfigError,
    DuodaqError,
    LifecycleError,
    PortLostError,
    ReplyTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    Cause,
    ChannelInfo,
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Parameters,
    ReadChannel,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
    command_name,
    holder_of,
    may_change,
)
from duodaq.ports import PortSource
from duodaq.telemetry import get_logger, told
from duodaq.v4._drivers import ActorKind, is_safe_action, may_move
from duodaq.v4._message import ActorState, HandlerSpec
from duodaq.v4._operation import Operation
from duodaq.v4._policy import RestartPolicy
from duodaq.v4._publisher import DataPublisher
from duodaq.v4._ref import ActorRef
from duodaq.v4._supervisor import Escalation, Supervisor
from duodaq.v4._system import ActorSystem
from duodaq.v4.instruments import SAFE_ACTION, InstrumentActor, InstrumentContext, Keep
from duodaq.v4.instruments._streams import Streams

_log = get_logger("v4.runtime")
_START_S = 10.0
_UNWIND_S = 5.0
_POLICY_KEYS = {"restart": "kind", "restart_limit": "limit", "restart_window_s": "window_s", "requeue": "requeue"}


class Resident:
    """An instrument that lives in the actor runtime, running or not."""

    def __init__(
        self,
        definition: InstrumentDefinition,
        kind: ActorKind,
        broker: PortSource,
        parameters: Parameters,
        publisher: DataPublisher,
        numbers: dict[str, int],
        changed: Callable[[], None],
        keep: Keep | None = None,
    ) -> None:
        self.turn = asyncio.Lock()
        self.definition = definition
        self.kind = kind
        self.ref: ActorRef | None = None
        self._broker = broker
        self._parameters = parameters
        self._publisher = publisher
        self._changed = changed
        self._keep = keep
        self._memory: dict[str, Any] = {"sequences": numbers}
        acquire = definition.options.get("acquire")
        if acquire:
            self._memory["acquiring"] = acquire if isinstance(acquire, dict) else {}
        self._lost_port = False
        self._spawning = False
        self._deadlines = Deadlines()
        self._start_error: Exception | None = None
        self._stop_came = False
        self._channels: tuple[ChannelInfo, ...] = ()
        self._streams: Streams | None = None
        self._status = InstrumentStatus(
            definition.id,
            "v4",
            InstrumentState.DISCONNECTED,
            worker=definition.worker or "inline",
            since_ns=utc_ns(),
            port=definition.port,
        )

    @property
    def status(self) -> InstrumentStatus:
        """What is known of it now; not ready before it takes messages. From any thread."""
        restarts = self.ref.restarts if self.ref is not None else 0
        early = self._spawning and self._status.state in (InstrumentState.READY, InstrumentState.ACQUIRING)
        state = InstrumentState.CONNECTING if early else self._status.state
        return msgspec.structs.replace(self._status, restarts=restarts, state=state)

    @property
    def channels(self) -> tuple[ChannelInfo, ...]:
        """What it can be subscribed for, once it has been started. From any thread."""
        return self._channels

    @property
    def running(self) -> bool:
        """Whether its actor takes messages."""
        return self.ref is not None and self.ref.state in (ActorState.RUNNING, ActorState.RESTARTING)

    @property
    def cut_by_stop(self) -> bool:
        """Whether its last start failed, and a stop came meanwhile or is latched, which may be why."""
        return self._stop_came

    @property
    def refused_by_stop(self) -> bool:
        """Whether its last start was refused something because of a stop."""
        return isinstance(self._start_error, UnsafeStateError | StoppedError)

    async def start(self, system: ActorSystem, timeout_s: float) -> None:
        """Spawn its actor.

        Raises:
            DuodaqError: It did not start; the instrument is in Error, and says why.
        """
        limit_s = min(timeout_s, float(self.definition.options.get("start_timeout_s", _START_S)))
        self._spawning, self._stop_came, self._start_error = True, False, None
        self._deadlines = Deadlines()  # of this loop
        epoch = self._stop_epoch
        self._changed()
        try:
            self.ref = await system.spawn(
                self._make,
                name=self.definition.id,
                restart=restart_policy(self.definition),
                supervisor=Supervisor(on_escalate=self._gave_up, parent=system.root),
                start_timeout_s=limit_s,
                stop_timeout_s=float(self.definition.options.get("stop_timeout_s", _UNWIND_S)),
            )
        except Exception as error:
            self._start_error = error
            self._stop_came = self._broker.latched or self._stop_epoch != epoch
            why = str(error) if isinstance(error, DuodaqError) else told(error)
            self.report(InstrumentState.ERROR, why, recoverable=not isinstance(error, ConfigError))
            if isinstance(error, DuodaqError):
                raise error.about(instrument=self.definition.id, command="start", port=self.definition.port) from None
            raise LifecycleError(f"it did not start: {why}", instrument=self.definition.id, command="start") from error
        finally:
            self._spawning = False
            self._changed()

    def report(self, state: InstrumentState, message: str, *, recoverable: bool = True) -> None:
        """Take note of its state."""
        old = self._status.state
        if old is not state and not may_change(old, state):
            _log.warning("odd change of state", instrument=self.definition.id, old=old.value, new=state.value)
        self._status = msgspec.structs.replace(
            self._status,
            state=state,
            message=message,
            recoverable=recoverable,
            since_ns=self._status.since_ns if old is state else utc_ns(),
        )
        self._changed()

    async def deliver(self, command: Command, deadline_s: float | None) -> Any:
        """Carry out a command by its message; its error names instrument, command and port."""
        safe = SAFE_ACTION.set(True) if is_safe_action(self.definition, command) else None  # a latch lets it pass
        try:
            message = self.kind.message_for(command)
            spec = self.kind.spec_for(message)
            result = await self._send(message, spec, self._limit_s(command, spec, deadline_s))
        except DuodaqError as error:
            self._learn(error)
            raise error.about(
                instrument=self.definition.id, command=command_name(command), port=self.definition.port
            ) from error.__cause__
        finally:
            if safe is not None:
                SAFE_ACTION.reset(safe)
        self._remember(command)
        return result

    def moves(self, command: Command) -> bool:
        """Whether a command may move or emit; of one that cannot be understood: yes; of its own safe action: no."""
        return may_move(self.kind, self.definition, command)

    def flush(self) -> None:
        """Publish the numbers that wait for others of their channel."""
        if self._streams is not None:
            self._streams.flush()

    def metrics(self) -> dict[str, Any]:
        """Figures of its mailbox and its polls."""
        figures: dict[str, Any] = {"state": self._status.state.value}
        if self.ref is not None:
            figures["mailbox"] = msgspec.to_builtins(self.ref.metrics)
        figures["poll_failures"] = dict(self._memory.get("poll_failures", {}))
        figures["rows_lost"] = self._memory.get("rows_lost", 0)
        return figures

    @property
    def _stop_epoch(self) -> int:
        return 0 if self.definition.port is None else self._broker.port(self.definition.port).owner.epoch

    def note_stop(self) -> None:
        """It is stopped: a stream that moves or emits does not begin again by itself."""
        if self.moves(StartAcquisition()):
            self._memory.pop("acquiring", None)

    def _make(self) -> InstrumentActor:
        port = self._broker.port(self.definition.port) if self.definition.port is not None else None
        context = InstrumentContext(
            self.definition,
            port,
            self._publisher,
            self._parameters,
            report=self.report,
            break_in=self._break_in,
            latched=lambda: self._broker.latched,
            memory=self._memory,
            keep=self._keep,
        )
        actor = self.kind(context)
        self._channels, self._streams = actor.channel_infos(), actor.streams
        self._changed()
        return actor

    async def _break_in(self, data: bytes, ends_moving: bool) -> int:
        if self.definition.port is None:
            raise LifecycleError("an instrument without a port cannot be broken in on")
        holder = holder_of(self.definition)
        return await self._broker.stop(self.definition.port, data, holder, ends_moving=ends_moving)

    def _target(self) -> ActorRef:
        if self.ref is None or self.ref.state in (ActorState.STOPPED, ActorState.FAILED):
            why = f": {self._status.message}" if self._status.message else ""
            raise LifecycleError(f"it is not running ({self._status.state}{why})", left="nothing was sent")
        return self.ref

    async def _send(self, message: Any, spec: HandlerSpec | None, limit_s: float | None) -> Any:
        ref = self._target()
        if limit_s is not None and (spec is None or not spec.operation):
            return await ref.ask(message, limit_s)
        operation = ref.operate(message)
        try:
            ended = await operation.ended_within(limit_s, self._deadlines)
        except asyncio.CancelledError:
            operation.cancel()  # whoever asked is gone: what moves for him stops
            raise
        if not ended:
            await self._cut(operation, limit_s or 0.0)
        return operation.reply.result()

    async def _cut(self, operation: Operation, limit_s: float) -> None:
        operation.cancel()
        await asyncio.wait((operation.reply,), timeout=_UNWIND_S)
        fate = operation.fate or "unknown"
        if fate not in ("done", "failed"):
            raise ReplyTimeoutError(f"it did not end within {limit_s:.3g} s and was cancelled", fate=str(fate))

    def _limit_s(self, command: Command, spec: HandlerSpec | None, deadline_s: float | None) -> float | None:
        if deadline_s is not None:
            return deadline_s
        own = self.definition.method_deadline_s
        name = command.channel if isinstance(command, ReadChannel) else command_name(command)
        if name in own:
            return own[name]
        if spec is not None and spec.operation and not isinstance(command, ReadChannel):
            return None  # a motion or an exposure ends by its own limit
        return self.definition.deadline_s

    def _learn(self, error: DuodaqError) -> None:
        if isinstance(error, PortLostError) and self._status.state in (
            InstrumentState.READY,
            InstrumentState.ACQUIRING,
        ):
            self.report(InstrumentState.ERROR, str(error))
            self._lost_port = True

    def _remember(self, command: Command) -> None:
        if isinstance(command, StartAcquisition):
            self._memory["acquiring"] = command.options
        elif isinstance(command, StopAcquisition):
            self._memory.pop("acquiring", None)
        elif isinstance(command, Stop):
            self.note_stop()
        if self._lost_port and isinstance(command, GetParameter | SetParameter | Execute | ReadChannel):
            self._lost_port = False
            acquiring = "acquiring" in self._memory
            self.report(InstrumentState.ACQUIRING if acquiring else InstrumentState.READY, "")

    async def _gave_up(self, escalation: Escalation) -> None:
        last = escalation.error
        why = str(last) if isinstance(last, DuodaqError) else told(last)
        self.report(InstrumentState.ERROR, f"gave up: {escalation.why}; the last error was {why}")
        await self._make_safe()

    async def _make_safe(self) -> None:
        action = self.definition.safe.get(Cause.CRASH)
        if action is None or action.kind in ("hold", "call") or self.definition.port is None:
            return  # a call needs the driver, which has just given up
        codec = self._broker.port(self.definition.port).codec
        data = action.data if action.kind == "bytes" else self.definition.stop
        if data is None and action.kind == "stop" and codec is not None:
            data = codec.stop_bytes(None)
        if data is None:
            return
        try:
            await self._broker.stop(self.definition.port, data, f"safe state of {self.definition.id}")
        except DuodaqError as error:
            _log.error("safe state not reached", instrument=self.definition.id, error=str(error))


def restart_policy(definition: InstrumentDefinition) -> RestartPolicy:
    """The policy of the options restart, restart_limit, restart_window_s and requeue.

    Raises:
        ConfigError: ``restart`` is none of permanent, transient, never.
    """
    chosen = {field: definition.options[key] for key, field in _POLICY_KEYS.items() if key in definition.options}
    if chosen.get("kind", "transient") not in ("permanent", "transient", "never"):
        raise ConfigError(
            f"no restart policy {chosen['kind']!r}",
            key=f"instruments.{definition.id}.restart",
            remedy='Write "permanent", "transient" or "never"',
        )
    return RestartPolicy(**chosen)
