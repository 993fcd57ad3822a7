from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from duodaq import sim
from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager, Factories
from duodaq.model import (
    AxisDefinition,
    InstrumentDefinition,
    LabDefinition,
    ManagerState,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
)
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.testing.coexistence._figures import Figures
from duodaq.testing.coexistence._proof import proofs_counted
from duodaq.testing.coexistence._within import forget_parts, make_v2, make_v4
from duodaq.v4.instruments import InstrumentActor


@dataclass(frozen=True, slots=True)
class Mode:
    """Where the two runtimes run: each "inline", in a "thread" or in a "process" of its own."""

    name: str
    v2: str
    v4: str

    def __str__(self) -> str:
        return self.name


MODES = (Mode("inline", "inline", "inline"), Mode("thread", "thread", "thread"), Mode("process", "process", "process"))
"""Those in which all twelve are run."""


def mode_named(name: str) -> Mode:
    """The mode called so: a kind of worker for both runtimes, or two as ``"V2+V4"`` (``"process+inline"``)."""
    v2, _, v4 = name.partition("+")
    return Mode(name, v2, v4 or v2)


@dataclass
class Bench:
    """What a coexistence test stands on: real simulators at real ptys and sockets, and a manager over both runtimes.

    Simulators and managers made here end with it, in reverse order, whatever the test did; so does its directory, with
    the evidence that drivers and actors leave there. `figures` are what the test measured; `proven` is how many marked
    assertions of each feature have held.
    """

    mode: Mode
    factories: Factories = field(default_factory=lambda: Factories(make_v2, make_v4))
    figures: Figures = field(default_factory=Figures)
    proven: dict[str, int] = field(default_factory=dict[str, int])
    _children: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _counting: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _managers: list[DualRuntimeManager] = field(default_factory=list[DualRuntimeManager])
    _table: sim.TableProcess | None = None
    _table_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _directory: str = ""

    async def __aenter__(self) -> Bench:
        self._counting.enter_context(proofs_counted(self.proven))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for manager in reversed(self._managers):
                if manager.state is not ManagerState.STOPPED:
                    await manager.shutdown(3.0)
        finally:
            self._counting.close()
            forget_parts()
            await asyncio.to_thread(self._children.close)

    @property
    def directory(self) -> str:
        """Where the files of this test are."""
        if not self._directory:
            made = tempfile.TemporaryDirectory(prefix="duodaq-coexistence-", ignore_cleanup_errors=True)
            self._directory = self._children.enter_context(made)
        return self._directory

    def room(self, name: str) -> str:
        """A directory in it, for those who leave more than one file."""
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def evidence(self, name: str) -> Evidence:
        """What instruments of the test note for it, from wherever they live."""
        return Evidence(os.path.join(self.directory, f"{name}.jsonl"))

    def gate(self, name: str, *, is_open: bool = False) -> Gate:
        """What instruments of the test wait for, wherever they live."""
        gate = Gate(os.path.join(self.directory, f"{name}.gate"))
        if is_open:
            gate.open()
        return gate

    async def table(self) -> sim.TableProcess:
        """The optical table under all simulators of this bench."""
        async with self._table_turn:
            if self._table is None:
                self._table = self._children.enter_context(await asyncio.to_thread(sim.launch_table, 1))
            return self._table

    async def simulator(self, name: str, **options: Any) -> sim.SimProcess:
        """One simulated instrument in a process of its own, unpaced unless told otherwise."""
        options.setdefault("table", await self.table())
        launched = await asyncio.to_thread(lambda: sim.launch(name, **options))
        return self._children.enter_context(launched)

    def manager(
        self,
        instruments: Iterable[InstrumentDefinition],
        ports: Iterable[PortDefinition] = (),
        *,
        shutdown_s: float = 5.0,
    ) -> DualRuntimeManager:
        """A manager over `instruments`, in this bench's mode; not started."""
        lab = LabDefinition(
            "coexistence",
            ports=tuple(ports),
            instruments=tuple(instruments),
            v2=RuntimeDefinition("v2", self.mode.v2),
            v4=RuntimeDefinition("v4", self.mode.v4),
            shutdown_s=shutdown_s,
        )
        made = DualRuntimeManager(lab, factories=self.factories)
        self._managers.append(made)
        return made

    @staticmethod
    def serial_port(name: str, simulator: sim.SimProcess, codec: str | None, **options: Any) -> PortDefinition:
        """The port at which `simulator` listens, on its pty."""
        return PortDefinition(name, serial={"path": simulator.address}, codec=codec, **options)

    @staticmethod
    def stage(port: str = "stage", **options: Any) -> InstrumentDefinition:
        """duodaq's Esp300 in V4, with axis x."""
        axes = (AxisDefinition("x", 1, "mm", (-10.0, 25.0)),)
        return InstrumentDefinition("stage", "v4", "duodaq:Esp300", port=port, axes=axes, **options)

    @staticmethod
    def esp(port: str = "stage", **options: Any) -> InstrumentDefinition:
        """PyMeasure's own ESP300 in V2, unmodified."""
        return InstrumentDefinition("esp", "v2", "pymeasure.instruments.newport:ESP300", port=port, **options)

    @staticmethod
    def polled(
        instrument: str, driver: Callable[..., Any], channel: str, call: str, unit: str, every_s: float, **options: Any
    ) -> InstrumentDefinition:
        """A blocking class of one's own in V2, one method of it polled."""
        polls = (PollDefinition(channel, every_s, unit, call=call),)
        return InstrumentDefinition(instrument, "v2", driver, polls=polls, **options)

    @staticmethod
    def own_class(
        instrument: str, driver: Callable[..., Any], port: str | None = None, **options: Any
    ) -> InstrumentDefinition:
        """A blocking class of one's own in V2."""
        return InstrumentDefinition(instrument, "v2", driver, port=port, **options)

    @staticmethod
    def own_actor(
        instrument: str, actor: type[InstrumentActor], port: str | None = None, **options: Any
    ) -> InstrumentDefinition:
        """An actor class of one's own in V4."""
        return InstrumentDefinition(instrument, "v4", actor, port=port, **options)


async def until(seen: Callable[[], bool], timeout_s: float, every_s: float = 0.005) -> bool:
    """Wait until `seen()` holds; whether it did in time."""
    deadline = Deadline(timeout_s)
    while not seen():
        if deadline.passed:
            return False
        await pause(every_s)
    return True


async def outcome(work: Awaitable[Any]) -> Any:
    """The result of `work`, or the exception it ended with."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the test looks at whatever came
        return error
