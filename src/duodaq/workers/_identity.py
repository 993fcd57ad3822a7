"""Whether the device at the end of a line is still the one that was there before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from duodaq.errors import DuodaqError, PortLostError
from duodaq.model import InstrumentDefinition
from duodaq.ports import Broker, PortOwner
from duodaq.telemetry import get_logger

_log = get_logger("workers.identity")
HOLDER = "identity check"


async def learn_identities(broker: Broker, definitions: Iterable[InstrumentDefinition]) -> None:
    """Ask the device at each of these ports once who it is, where its codec knows how and nobody has asked yet."""
    for owner in _owners(broker, definitions):
        if owner.identity_reply is None:
            try:
                await _ask(broker, owner)
            except DuodaqError as error:
                _log.info("identity not known", port=owner.name, error=str(error))


async def impostors(broker: Broker, definitions: tuple[InstrumentDefinition, ...]) -> dict[str, str]:
    """The instruments to which nothing may be written, because another device answers at their port; and why.

    A line that is lost is left to the broker, which checks the identity itself before anybody may use it again.
    """
    owners = [owner for owner in _owners(broker, definitions) if owner.identity_reply is not None]
    answers = await asyncio.gather(*(_strangeness(broker, owner) for owner in owners))
    strange = {owner.name: why for owner, why in zip(owners, answers, strict=True) if why}
    return {d.id: strange[d.port] for d in definitions if d.port in strange}


async def _strangeness(broker: Broker, owner: PortOwner) -> str:
    known = owner.identity_reply
    try:
        reply = await _ask(broker, owner)
    except PortLostError:
        return ""
    except DuodaqError as error:
        return f"the device does not say who it is: {error}; nothing was written to it"
    if reply == known or known is None:
        owner.books.acquainted()
        return ""
    return f"{owner.books.stranger(reply, known)}; nothing was written to it"


async def _ask(broker: Broker, owner: PortOwner) -> bytes:
    query = owner.codec.identity() if owner.codec is not None else None
    assert query is not None
    return await broker.port(owner.name).exchange(query[0], holder=HOLDER, reply=query[1])


def _owners(broker: Broker, definitions: Iterable[InstrumentDefinition]) -> list[PortOwner]:
    names = dict.fromkeys(d.port for d in definitions if d.port is not None)
    owners = [broker.owner(name) for name in names]
    return [owner for owner in owners if owner.codec is not None and owner.codec.identity() is not None]
