"""Where each group of instruments is housed: how its host is made, and what a worker process gets of the lab."""

from __future__ import annotations

from collections.abc import Sequence

from duodaq.bridge import ParameterTable
from duodaq.dual._placement import Group
from duodaq.dual._safety import crash_bytes, gather_failures
from duodaq.model import InstrumentDefinition, RuntimeName
from duodaq.ports import Broker
from duodaq.telemetry import get_logger
from duodaq.workers import (
    Factories,
    Host,
    Hosted,
    Nursery,
    ProcessHosted,
    RuntimeFactory,
    RuntimeParts,
    Surroundings,
    make_worker,
)

_log = get_logger("duodaq.dual")


class Housing:
    """Makes the hosts of a lab's runtimes.

    Args:
        broker: The lab's ports.
        parts: What a runtime in this process is given.
        parameters: The lab's table.
        factories: How the runtimes are made.
        memory_bytes: What a worker process of either runtime may take.
    """

    def __init__(
        self,
        broker: Broker,
        parts: RuntimeParts,
        parameters: ParameterTable,
        factories: Factories,
        memory_bytes: dict[RuntimeName, int | None],
    ) -> None:
        self.nursery = Nursery()
        self._broker = broker
        self._parts = parts
        self._factories: dict[RuntimeName, RuntimeFactory] = {"v2": factories.v2, "v4": factories.v4}
        self._memory_bytes = memory_bytes
        self._around = Surroundings(
            broker, parameters, parts.v2_data, parts.v4_data, parameters.snapshot, parameters.watch
        )

    def host(self, group: Group) -> Host:
        """The host of a group, not started."""
        name, factory = group.runtime, self._factories[group.runtime]
        if group.kind == "process":
            memory = self._memory_bytes[name]
            return ProcessHosted(name, group.name, factory, self.nursery, self._around, self._crash_actions, memory)
        return Hosted(name, lambda: factory(self._parts), make_worker(group.kind, group.name))

    async def _crash_actions(self, instruments: Sequence[InstrumentDefinition], cause: str) -> None:
        """What makes instruments safe whose process has died, as far as bytes can do it."""
        wire = {d.id: (d.port, data) for d in instruments if (data := crash_bytes(d, self._broker)) is not None}
        if not wire:
            return
        failures = await gather_failures(
            {
                id: self._broker.stop(port, data, holder=f"safe state of {id}")
                for id, (port, data) in wire.items()
                if port is not None
            }
        )
        _log.warning("safe state after a crash", instruments=list(wire), cause=cause, failures=failures)
