from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from duodaq.clock import Deadline
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    Runtime,
    RuntimeName,
    RuntimeStatus,
    command_name,
)
from duodaq.v2 import V2Command
from duodaq.workers._hosting import HUNG_AFTER_S
from duodaq.workers._parts import as_kept, submitted
from duodaq.workers._promise import Worker

Learn = Callable[[tuple[InstrumentDefinition, ...]], Coroutine[Any, Any, None]]
_IN_HAND_S = 0.2
MARGIN_S = 0.25
"""How much longer than its deadline a command is waited for: the runtime's own verdict is the better one."""


class Hosted:
    """A runtime in a worker, seen from the manager's loop: the Runtime promise, with `end_moving` awaited.

    The runtime is made on the worker's loop by `factory`. If the worker does not answer, callers are freed at their
    deadline and the instruments in it are shown as Hung until it does. When instruments have been started, `learn` asks
    who answers at their ports, so that another device is known for that after a line was lost.
    """

    def __init__(
        self, name: RuntimeName, factory: Callable[[], Runtime], worker: Worker, learn: Learn | None = None
    ) -> None:
        self._name: RuntimeName = name
        self._factory = factory
        self.worker = worker
        self._runtime: Runtime | None = None
        self._definitions: dict[str, InstrumentDefinition] = {}
        self._learn = learn
        self._learning: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> RuntimeName:
        return self._name

    @property
    def status(self) -> RuntimeStatus:
        """The runtime's own status; failed if its worker died, degraded while the worker is hung."""
        if self._runtime is None:
            return RuntimeStatus.STOPPED
        if not self.worker.alive:
            return RuntimeStatus.FAILED
        if self.worker.blocked_s > HUNG_AFTER_S:
            return RuntimeStatus.DEGRADED
        return self._runtime.status

    async def start(self, timeout_s: float) -> None:
        """Start the worker, make the runtime in it, add its instruments and start them."""
        deadline = Deadline(timeout_s)
        await self.worker.start(timeout_s)
        self._runtime = await self.worker.call(self._make, deadline.left_s)
        for definition in self._definitions.values():
            await self._call(lambda r, d=definition: r.add(d), deadline.left_s)
        await self._call(lambda r: r.start(deadline.left_s), deadline.left_s + MARGIN_S)
        self._learn_of(*self._definitions.values())

    def _learn_of(self, *definitions: InstrumentDefinition) -> None:
        if self._learn is not None:
            task = asyncio.create_task(self._learn(definitions), name=f"identities of {self._name}")
            self._learning.add(task)
            task.add_done_callback(self._learning.discard)

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop the runtime, then its worker; both within `timeout_s`. What does not answer is reported as leaked."""
        deadline = Deadline(timeout_s)
        reports: tuple[ComponentReport, ...] = ()
        await self._learn_no_more(min(_IN_HAND_S, timeout_s / 10))
        if self._runtime is not None and self.worker.alive:
            share = timeout_s * 0.8
            try:
                reports = await self._call(lambda r: r.stop(share), share + timeout_s * 0.1)
            except ReplyTimeoutError:
                why = f"its worker did not answer within {timeout_s:g} s"
                ids = self._definitions or {"": None}
                reports = tuple(ComponentReport(f"{self._name}.{i}".rstrip("."), Outcome.LEAKED, why) for i in ids)
        reports += (await self.worker.stop(max(deadline.left_s, 0.01)),)
        self._runtime = None
        return reports

    async def _learn_no_more(self, timeout_s: float) -> None:
        """End the questions; one in hand is let finish if it is quick, for a cut one leaves its port to be mended."""
        if self._learning:
            await asyncio.wait(self._learning, timeout=timeout_s)
        for task in self._learning:
            task.cancel()
        await asyncio.gather(*self._learning, return_exceptions=True)

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        """Add an instrument, now or at the next start; without `keep`, one that does not start is not there then."""
        self._definitions[definition.id] = definition
        if self._runtime is not None:
            try:
                await self._call(lambda r: r.add(definition, **as_kept(keep)), 30.0)
            except BaseException as error:
                if keep and isinstance(error, DuodaqError):
                    self._learn_of(definition)
                    raise
                self._definitions.pop(definition.id, None)
                with contextlib.suppress(DuodaqError):  # one runtime keeps what did not start, the other forgets it
                    await self._call(lambda r: r.remove(definition.id), 5.0)
                raise
            self._learn_of(definition)

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it."""
        if self._runtime is None:
            self._definitions.pop(instrument, None)
            return ComponentReport(f"{self._name}.{instrument}", Outcome.CLEAN)
        report = await self._call(lambda r: r.remove(instrument), 30.0)
        self._definitions.pop(instrument, None)
        return report

    def forget(self, instrument: str) -> None:
        """Never start an instrument again that could not be removed in time."""
        self._definitions.pop(instrument, None)

    def expect(self, definition: InstrumentDefinition) -> None:
        """Nothing is prepared: a worker in this process has what this process has loaded."""

    async def awake(self, limit_s: float) -> None:
        """It is: a worker in this process is not replaced."""

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again."""
        await self._call(lambda r: r.restart(instrument), 60.0)

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command in the worker; see Runtime.command."""
        limit = None if deadline_s is None else deadline_s + MARGIN_S
        try:
            return await self._call(lambda r: r.command(instrument, command, deadline_s), limit)
        except (ReplyTimeoutError, LifecycleError) as error:
            raise error.about(instrument=instrument, command=command_name(command)) from error.__cause__

    async def submit(self, command: V2Command, timeout_s: float) -> Any:
        """Carry out one of V2's own commands in the worker; see V2Runtime.submit."""
        return await self._call(lambda r: submitted(r, command), timeout_s)

    def moves(self, instrument: str, command: Command) -> bool:
        """See Runtime.moves; of a runtime that is not there the cautious answer."""
        return True if self._runtime is None else self._runtime.moves(instrument, command)

    async def end_moving(self, reason: str, timeout_s: float = 1.0) -> int:
        """End every waiting command that moves or emits; the number ended, 0 if the worker does not answer."""

        async def end(runtime: Runtime) -> int:
            return runtime.end_moving(reason)

        try:
            return await self._call(end, timeout_s)
        except (DeliveryError, LifecycleError):
            return 0

    async def flush(self, timeout_s: float = 1.0) -> bool:
        """Have all that was measured until now published; False if the worker did not answer in time."""

        async def flush(runtime: Runtime) -> bool:
            runtime.flush()
            return True

        try:
            return await self._call(flush, timeout_s)
        except (DeliveryError, LifecycleError):
            return False

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """Every instrument's status; Hung while the worker owes an answer."""
        worker = self.worker
        if self._runtime is None:
            return tuple(
                InstrumentStatus(
                    d.id, self._name, InstrumentState.DISCONNECTED, worker.name, port=d.port, mode=worker.kind
                )
                for d in self._definitions.values()
            )
        where: dict[str, Any] = {"worker": worker.name, "mode": worker.kind, "pid": worker.pid}
        seen = tuple(msgspec.structs.replace(s, **where) for s in self._runtime.instruments())
        if self.worker.blocked_s <= HUNG_AFTER_S:
            return seen
        why = f"worker {self.worker.name} has not answered for {self.worker.blocked_s:.1f} s"
        return tuple(msgspec.structs.replace(s, state=InstrumentState.HUNG, message=why) for s in seen)

    def channels(self) -> tuple[ChannelInfo, ...]:
        return () if self._runtime is None else self._runtime.channels()

    def metrics(self) -> dict[str, Any]:
        return {} if self._runtime is None else self._runtime.metrics()

    async def _make(self) -> Runtime:
        return self._factory()

    async def _call(self, work: Callable[[Runtime], Any], timeout_s: float | None) -> Any:
        runtime = self._runtime
        if runtime is None:
            raise LifecycleError(f"runtime {self._name} is not running")
        return await self.worker.call(lambda: work(runtime), timeout_s)
