"""Any SCPI instrument as an actor, and the ground for a lab's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

from duodaq.clock import utc_ns
from duodaq.drivers.scpi import ScpiCodec, ScpiDriver
from duodaq.errors import DuodaqError
from duodaq.model import ChannelInfo, PollDefinition
from duodaq.schema import scpi_event_batch
from duodaq.v4._message import handler
from duodaq.v4.instruments._instrument import InstrumentActor, Parameter
from duodaq.v4.instruments._messages import (
    ClearErrors,
    Identify,
    Query,
    QueryBlock,
    QueryWithTimeout,
    ReadError,
    Reset,
    Transact,
    Write,
)

__all__ = ["ScpiActor", "scpi_setting"]

T = TypeVar("T")
_CODEC = ScpiCodec()


def _emits(message: Write | Transact) -> bool:
    return _CODEC.moves(message.command.encode("latin-1", "replace") + b"\n")


def _only_asks(message: Query | QueryWithTimeout | QueryBlock) -> bool:
    return _CODEC.only_asks(message.command.encode("latin-1", "replace") + b"\n")


def scpi_setting(header: str, unit: str = "", parse: Callable[[str], Any] = float, *, emits: bool = False) -> Parameter:
    """A parameter that is one SCPI header: ``header?`` reads it, ``header value`` sets it and reads it back.

    Args:
        parse: Makes a value of the reply; ``float`` if nothing else is said.
        emits: Whether setting it may move or emit something.

    Wire:
        ``VOLT:RANG 10\\n``, ``SYST:ERR?\\n`` → ``+0,"No error"\\n``, ``VOLT:RANG?\\n`` → ``+1.0E+01\\n``
    """

    async def read(actor: ScpiActor) -> Any:
        return parse(await actor.driver.query(f"{header}?"))

    async def write(actor: ScpiActor, value: Any) -> Any:
        await actor.driver.command(f"{header} {int(value) if isinstance(value, bool) else value}")
        return await read(actor)

    return Parameter(read, write, unit, emits)


class ScpiActor(InstrumentActor):
    """Queries, writes and transactions, each with an event to Arrow on the channel ``events``.

    Polled channels ``read`` a parameter or any query: ``poll.voltage = { read = "READ?", unit = "V", every = "1 s" }``.
    """

    operations: ClassVar[Mapping[str, type]] = {
        "query": Query,
        "query_with_timeout": QueryWithTimeout,
        "query_block": QueryBlock,
        "write": Write,
        "transact": Transact,
        "read_error": ReadError,
        "clear_errors": ClearErrors,
        "reset": Reset,
        "identify": Identify,
    }

    async def connect(self) -> None:
        """Ask who it is; nothing else is sent."""
        self.driver = ScpiDriver(self.port, self.context.holder, timeout_s=self.definition.args.get("timeout_s"))
        self.note("identity", await self.driver.identify())

    async def read_channel(self, poll: PollDefinition) -> float:
        """One reading: of a parameter, or the number that a query replies."""
        if poll.read is not None and poll.read not in self.known_parameters():
            return await self.driver.query_number(poll.read)
        return await super().read_channel(poll)

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """The polled channels, and the events."""
        return (*super().channel_infos(), ChannelInfo(self.definition.id, "events", "", "scpi_event", "v4"))

    @handler(Query, idempotent=_only_asks)
    async def query(self, message: Query) -> str:
        """The reply to a query, as text."""
        return await self._recorded(message.command, self.driver.query(message.command))

    @handler(QueryWithTimeout, idempotent=_only_asks, operation=True)
    async def query_with_timeout(self, message: QueryWithTimeout) -> str:
        """The reply to a query that may take long; the mailbox goes on meanwhile."""
        return await self._recorded(message.command, self.driver.query(message.command, message.timeout_s))

    @handler(QueryBlock, idempotent=_only_asks, operation=True)
    async def query_block(self, message: QueryBlock) -> bytes:
        """The payload of a binary block, exact to the byte; the mailbox goes on meanwhile."""
        return await self._recorded(message.command, self.driver.query_block(message.command, message.timeout_s))

    @handler(Write, moves=_emits)
    async def write(self, message: Write) -> None:
        """Write a command that has no reply."""
        await self._recorded(message.command, self.driver.write(message.command))

    @handler(Transact, moves=_emits, operation=True)
    async def transact(self, message: Transact) -> str:
        """Write a command and wait until it is complete; the mailbox goes on meanwhile."""
        return await self._recorded(message.command, self.driver.transact(message.command, message.timeout_s))

    @handler(ReadError)
    async def read_error(self, message: ReadError) -> list[tuple[int, str]]:
        """Empty the error queue; its entries, oldest first."""
        return [(error.code, error.text) for error in await self.driver.read_errors()]

    @handler(ClearErrors)
    async def clear_errors(self, message: ClearErrors) -> None:
        """Empty the error queue and the event registers."""
        await self._recorded("*CLS", self.driver.clear_errors())

    @handler(Reset, moves=True, operation=True)
    async def reset(self, message: Reset) -> None:
        """Bring the instrument to its reset state, and wait until it is there."""
        await self._recorded("*RST", self.driver.reset())

    @handler(Identify, idempotent=True)
    async def identify(self, message: Identify) -> str:
        """Maker, model, serial number, firmware."""
        return await self._recorded("*IDN?", self.driver.identify())

    async def _recorded(self, command: str, work: Awaitable[T]) -> T:
        try:
            reply = await work
        except DuodaqError as error:
            await self._event(command, None, str(error))
            raise
        await self._event(command, reply if isinstance(reply, str) else None, None)
        return reply

    async def _event(self, command: str, response: str | None, error: str | None) -> None:
        batch = scpi_event_batch(
            instrument=self.definition.id,
            t_ns=[utc_ns()],
            sequence=[self.streams.sequence("events")],
            command=[command],
            response=[response],
            success=[error is None],
            error=[error],
        )
        await self.streams.deliver("events", batch)
