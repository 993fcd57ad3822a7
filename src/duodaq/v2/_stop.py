from __future__ import annotations

from duodaq.errors import RefusedError
from duodaq.model import InstrumentDefinition
from duodaq.ports import PortSource


class StopWriter:
    """Writes an instrument's stop on its port, beside whatever its driver is doing there."""

    def __init__(self, broker: PortSource) -> None:
        self._broker = broker

    def stop_bytes(self, definition: InstrumentDefinition, axis: str | None = None) -> bytes:
        """What stops the instrument, or one axis of it: the bytes of its stanza, else its codec's.

        Raises:
            RefusedError: It has none: its driver owns the device privately, or nobody said what stops it.
        """
        if definition.port is None:
            raise RefusedError(
                "it has no stop: its driver owns the device privately",
                instrument=definition.id,
                command="Stop",
                left="nothing was sent; share its port through the lab file to have one",
            )
        codec = self._broker.port(definition.port).codec
        from_codec = None if codec is None else codec.stop_bytes(axis)
        data = from_codec if axis is not None and from_codec is not None else (definition.stop or from_codec)
        if data is None:
            raise RefusedError(
                "it has no stop: neither its stanza nor its port's codec says what stops it",
                instrument=definition.id,
                command="Stop",
                port=definition.port,
                left="nothing was sent",
            )
        return data

    async def write(self, definition: InstrumentDefinition, axis: str | None = None) -> int:
        """Put the stop on the wire; the driver call in hand may write nothing more that moves.

        Returns:
            When it was on the wire, UTC ns.
        """
        data = self.stop_bytes(definition, axis)
        return await self._broker.stop(definition.port or "", data, holder=f"stop of v2.{definition.id}")
