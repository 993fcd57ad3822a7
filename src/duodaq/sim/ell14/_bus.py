"""Rotators on one half-duplex line.

The rules that must stay:

* Packets have no end: they are told apart by their length. An address that nobody has is silence.
* A command that moves is answered when the motion ends, whatever else was said on the line meanwhile.
* Somebody at a button may make a rotator speak at any time.
"""

from __future__ import annotations

import time
from typing import Any

from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.ell14._packets import Packet, PacketReader
from duodaq.sim.ell14._rotator import COMM_TIMEOUT, ELL8, ELL14, Kind, Rotator
from duodaq.sim.table import Table

_KINDS: dict[str, tuple[Kind, ...]] = {
    "3xELL14": (ELL14, ELL14, ELL14),
    "1xELL14": (ELL14,),
    "2xELL14+ELL8": (ELL14, ELL14, ELL8),
}
MODELS = tuple(_KINDS)
"""Their addresses are 0, 1 and 2. An ELL8 has other pulses in a revolution than an ELL14."""


class ElliptecBus:
    """The rotators of one line; each is an axis of the optical table."""

    def __init__(self, table: Table, model: str = MODELS[0]) -> None:
        self.name = "ell14"
        self.model = model
        self.line = Line(baud=9600, processing_s=0.003)
        self.tally = Tally()
        self.paced = True
        self.rotators = [Rotator(table, kind, f"{number:X}") for number, kind in enumerate(_KINDS[model])]
        self._reader = PacketReader()
        self._asked = False
        self._client = 0

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        return b""

    def close_session(self, client: int) -> None:
        """It does not notice."""

    def power_cycle(self, now_s: float) -> None:
        """All stop; where each stands is its zero."""
        self._reader = PacketReader()
        for rotator in self.rotators:
            rotator.power_cycle(now_s)

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Carry out what is complete; an answer that was not fetched yet is interleaved with."""
        self._client = client
        replies = self.due(now_s)
        if pending and self._asked:
            self.tally.interleavings += 1
        for packet in self._reader.feed(data, now_s):
            replies += self._execute(packet, now_s)
        return replies

    def due(self, now_s: float) -> list[Reply]:
        """Packets that came to no end, and motions that have ended."""
        replies: list[Reply] = []
        for packet in self._reader.expire(now_s):
            replies += self._execute(packet, now_s)
        for rotator in self.rotators:
            if rotator.ends_s is not None and now_s >= rotator.ends_s:
                self._asked = False
                replies.append(self._reply(rotator.end(now_s)))
        return replies

    def due_at_s(self) -> float | None:
        """When the next of these is due."""
        moments = [rotator.ends_s for rotator in self.rotators] + [self._reader.expires_at_s()]
        finite = [moment for moment in moments if moment is not None and moment != float("inf")]
        return min(finite) if finite else None

    def press_button(self, address: str) -> None:
        """Press the button on the board of a rotator."""
        next(rotator for rotator in self.rotators if rotator.address == address).press(time.monotonic())

    def report(self) -> dict[str, Any]:
        """The tally, and the addresses that answer now."""
        return self.tally.as_dict() | {"addresses": [rotator.address for rotator in self.rotators]}

    def _execute(self, packet: Packet, now_s: float) -> list[Reply]:
        self.tally.commands += 1
        replies: list[Reply] = []
        for rotator in self.rotators:
            if packet.address not in (rotator.address, rotator.group):
                continue
            if packet.broken:
                self.tally.misframed += 1
                replies.append(self._reply(f"{rotator.address}GS{COMM_TIMEOUT:02X}"))
                continue
            said = self._told(rotator, packet, now_s)
            if said is not None:
                self._asked = True
                replies.append(self._reply(said))
        return replies

    def _told(self, rotator: Rotator, packet: Packet, now_s: float) -> str | None:
        if packet.letters == "ga":
            rotator.group = packet.data.upper()
            return f"{rotator.address}GS00"
        if packet.address == rotator.group:
            rotator.group = None
        return rotator.answer(packet.letters, packet.data, now_s)

    def _reply(self, said: str) -> Reply:
        self.tally.exchanges += 1
        self.tally.produced[said[1:3]] += 1
        return Reply(0.0, f"{said}\r\n".encode(), self._client)


def make(*, model: str | None, table: Table, seed: int) -> ElliptecBus:
    """The simulator; it has no noise."""
    chosen = model or MODELS[0]
    if chosen not in MODELS:
        raise ValueError(f"ell14 has no model {chosen!r}; there are: {', '.join(MODELS)}")
    return ElliptecBus(table, chosen)
