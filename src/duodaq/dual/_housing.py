"""Where each group of instruments is housed: how its host is made, and what a worker process gets of the lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from duodaq.bridge import ParameterTable
from duodaq.dataplane import Ledger
from duodaq.dual._guard import Guard
from duodaq.dual._placement import Group
from duodaq.dual._safety import crash_bytes, gather_failures
from duodaq.model import InstrumentDefinition, RuntimeName
from duodaq.ports import Broker
from duodaq.telemetry import get_logger
from duodaq.workers import (
    Factories,
    FeedBooks,
    Host,
    Hosted,
    Nursery,
    ProcessGroup,
    ProcessHosted,
    RecorderDesk,
    RuntimeFactory,
    RuntimeParts,
    SharedPage,
    Surroundings,
    Switchboard,
    learn_identities,
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
        guard: Who sees to it that no worker process outlives this one.
        board: How instruments ask each other.
        recorder: What V2's commands to record drive.
    """

    def __init__(
        self,
        broker: Broker,
        parts: RuntimeParts,
        parameters: ParameterTable,
        factories: Factories,
        memory_bytes: dict[RuntimeName, int | None],
        guard: Guard,
        board: Switchboard,
        recorder: RecorderDesk,
    ) -> None:
        self.nursery = Nursery()
        self._broker = broker
        self._parts = parts
        self._factories: dict[RuntimeName, RuntimeFactory] = {"v2": factories.v2, "v4": factories.v4}
        self._memory_bytes = memory_bytes
        self._lasting: dict[str, tuple[SharedPage, FeedBooks]] = {}
        self._around = Surroundings(
            broker=broker,
            parameters=parameters,
            v2_data=parts.v2_data,
            v4_data=parts.v4_data,
            entries=parameters.snapshot,
            watch=parameters.watch,
            worker_began=guard.worker_began,
            worker_ended=guard.worker_ended,
            board=board,
            recorder=recorder,
        )

    def host(self, group: Group) -> Host:
        """The host of a group, not started."""
        name, factory = group.runtime, self._factories[group.runtime]
        if group.kind == "process":
            return ProcessHosted(self._process_group(group, factory))
        learn = partial(learn_identities, self._broker)
        return Hosted(name, lambda: factory(self._parts), make_worker(group.kind, group.name), learn)

    def _process_group(self, group: Group, factory: RuntimeFactory) -> ProcessGroup:
        page, books = self._lasting.get(group.name, (None, None))
        if page is None or books is None:
            hub = self._parts.v2_data if group.runtime == "v2" else self._parts.v4_data
            page, books = self._lasting[group.name] = SharedPage(), FeedBooks(f"worker {group.name}", hub.name)
        return ProcessGroup(
            group.runtime,
            group.name,
            factory,
            self.nursery,
            self._around,
            page,
            books,
            self._crash_actions,
            self._memory_bytes[group.runtime],
        )

    def numbers(self, group: Group, instrument: str) -> dict[str, int]:
        """The next sequence number of each stream that an instrument has there."""
        if group.kind == "process":
            page = self._lasting.get(group.name)
            return {} if page is None else page[0].numbers_of(instrument)
        if group.runtime == "v2":
            return self._parts.v2_numbers.of(instrument)
        return dict(self._parts.v4_numbers.get(instrument, {}))

    def accounted_for(self, group: Group, instrument: str, numbers: Mapping[str, int]) -> bool | None:
        """Whether all before these numbers is published or booked as lost; None where it is published by its maker."""
        if group.kind != "process":
            return None
        lasting = self._lasting.get(group.name)
        return lasting is None or all(lasting[1].is_settled(f"{instrument}.{c}", n) for c, n in numbers.items())

    def ledgers(self) -> dict[str, Ledger]:
        """The books of every worker process that there has been, by its name."""
        return {f"worker {name}": books.ledger() for name, (_, books) in self._lasting.items()}

    async def aclose(self) -> None:
        """End the spares, and give back what outlived the workers. Idempotent; the books can still be read."""
        await self.nursery.aclose()
        for page, _ in self._lasting.values():
            page.close()

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
