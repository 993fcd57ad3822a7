from __future__ import annotations

from collections.abc import Callable

import msgspec

from duodaq.errors import DataError
from duodaq.link import Message
from duodaq.ports._broker import Broker
from duodaq.ports._owner import PortOwner
from duodaq.ports._port_desk import PortDesk
from duodaq.ports._sentences import OfUser, PortFacts, Ports
from duodaq.ports._told_codec import status_query_of

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OfUser).decode


class Gate:
    """Lets programs outside use the ports of `broker`: each that talks here has a desk of its own.

    What a program had, its leases, locks and exchanges, goes back when it leaves or dies. It may stop nothing by this
    way, and gets past no latch.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def talk(self, say: Callable[[bytes], None]) -> Talker:
        """This end of a talk with one program; it is told at once which ports there are."""
        return Talker(self._broker, say)


class Talker:
    """One program's talk. On the broker's loop."""

    def __init__(self, broker: Broker, say: Callable[[bytes], None]) -> None:
        self._say = say
        self._desk = PortDesk(broker, self._tell)
        self._tell(Ports(broker.lab, [_facts(broker.owner(name)) for name in broker.names()]))

    def heard(self, sentence: bytes) -> None:
        """Carry out what it asks for.

        Raises:
            DataError: It makes no sense.
        """
        try:
            request = _decode(sentence)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(f"not a sentence about ports: {error}") from error
        self._desk.heard(request)

    def close(self) -> None:
        """The program is gone: give back and cut all that it had."""
        self._desk.close()

    def _tell(self, message: Message) -> None:
        self._say(_encode(message))


def _facts(owner: PortOwner) -> PortFacts:
    definition, codec = owner.definition, owner.codec
    return PortFacts(
        name=owner.name,
        serial=None if definition.serial is None else {key: _plain(value) for key, value in definition.serial.items()},
        tcp=definition.tcp,
        timeout_s=definition.timeout_s,
        idle_ms=definition.idle_ms,
        hold_max_s=definition.hold_max_s,
        codec=None if codec is None else codec.name,
        write_terminator=b"" if codec is None else codec.write_terminator,
        longest_reply_s=0.0 if codec is None else codec.longest_reply_s,
        status_query=status_query_of(codec),
        visa=None if definition.visa is None else definition.visa.resource,
    )


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
