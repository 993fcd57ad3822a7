"""Who belongs to a running lab: instruments and ports that come and go while all the others go on.

Rules for whoever edits this:

* Nothing here touches an instrument, a worker or a port that was not named.
* What does not come up is not there afterwards, unless it is to be `kept`: then it is there as after a start of the lab
  that it failed, and is tried again by itself.
* One that has moved before is added in a newer epoch: in an older one it could not write.
* The watchdog is told after each step, also after one that failed, and is there before what it guards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from duodaq.bridge import ParameterTable
from duodaq.drivers import codec as find_codec
from duodaq.dual._guard import Guard
from duodaq.dual._safety import in_words, make_safe
from duodaq.dual._side import Side
from duodaq.errors import ConfigError, LifecycleError, PortError
from duodaq.model import (
    Cause,
    ComponentReport,
    InstrumentDefinition,
    PortDefinition,
    RuntimeName,
    holder_of,
    owner_named,
)
from duodaq.ports import Broker, Transport
from duodaq.telemetry import get_logger

LET_GO_S = 3.0
"""How long an instrument that is removed has for its safe state."""
OPEN_S = 10.0
_log = get_logger("duodaq.dual")


class Roster:
    """Adds and removes instruments and ports of a running lab; see DualRuntimeManager, which is asked for it.

    Args:
        sides: The two runtimes.
        broker: The lab's ports.
        guard: The watchdog.
        parameters: The parameter table.
        ports: The definitions of the lab's ports, which this keeps up to date.
        transports: What ports are opened with instead of their own, by name.
    """

    def __init__(
        self,
        sides: Mapping[RuntimeName, Side],
        broker: Broker,
        guard: Guard,
        parameters: ParameterTable,
        ports: dict[str, PortDefinition],
        transports: Mapping[str, Transport],
    ) -> None:
        self._sides = sides
        self._broker = broker
        self._guard = guard
        self._parameters = parameters
        self._ports = ports
        self._transports = transports

    def definitions(self) -> list[InstrumentDefinition]:
        """Every instrument there is."""
        return [d for side in self._sides.values() for d in side.definitions]

    async def add(self, instrument: InstrumentDefinition, *, keep: bool) -> None:
        """See DualRuntimeManager.add."""
        if instrument.id in (one.id for one in self.definitions()):
            raise ConfigError("there is an instrument of this id already", key=f"instruments.{instrument.id}")
        side = self._sides[instrument.runtime]
        all_of_them = (*self.definitions(), instrument)
        await self._guard.start(all_of_them, workers=side.in_process(instrument), timeout_s=5.0)
        instrument = await self._as_newest_owner(instrument)
        try:
            await side.add(instrument, keep=keep)
        finally:
            self._guard.tell(self.definitions())

    async def _as_newest_owner(self, instrument: InstrumentDefinition) -> InstrumentDefinition:
        """The definition in a newer epoch than any owner before it, if there was one: no other may write."""
        before = owner_named(self._broker.fences.owner(instrument.id) or "")
        if before is None:
            return instrument
        newest = replace(instrument, epoch=max(instrument.epoch, before.epoch + 1))
        await self._broker.fence(newest.id, holder_of(newest), newest.port)
        return newest

    async def remove(self, side: Side, instrument: str, *, safe: bool) -> ComponentReport:
        """See DualRuntimeManager.remove."""
        if safe:
            await self._let_go(side, instrument)
        try:
            report = await side.remove(instrument)
            self._parameters.mark_stale(side.name, instrument)
            self._parameters.release(side.name, instrument)
        finally:
            self._guard.tell(self.definitions())
        return report

    async def _let_go(self, side: Side, instrument: str) -> None:
        try:
            done = await make_safe(side, side[instrument], self._broker, Cause.SHUTDOWN, LET_GO_S)
        except Exception as error:  # noqa: BLE001 - whatever its driver raises, it is removed all the same
            _log.error("no safe state for one that is removed", instrument=instrument, error=in_words(error))
        else:
            _log.info("safe state of one that is removed", instrument=instrument, done=done)

    async def add_port(self, port: PortDefinition, *, keep: bool) -> None:
        """See DualRuntimeManager.add_port."""
        codec = find_codec(port.codec) if port.codec else None
        await self._broker.add(port, codec, self._transports.get(port.name))
        try:
            await self._broker.open(port.name, OPEN_S)
        except BaseException as error:
            if keep and isinstance(error, PortError):
                await self._broker.open_later(port.name, str(error))
                self._ports[port.name] = port
            else:
                await self._broker.remove(port.name)
            raise
        self._ports[port.name] = port

    async def remove_port(self, name: str) -> ComponentReport:
        """See DualRuntimeManager.remove_port."""
        users = [one.id for one in self.definitions() if one.port == name]
        if users:
            raise LifecycleError(f"{', '.join(users)} would have no port", port=name, left="it stays open")
        try:
            report = await self._broker.remove(name)
            self._ports.pop(name, None)
        finally:
            self._guard.tell(self.definitions())
        return report
