"""Packets from the host: an address, two small letters, and as much hexadecimal data as the letters say. No end."""

from __future__ import annotations

from typing import NamedTuple

_DATA = {
    **dict.fromkeys(("ma", "mr", "sj", "so"), 8),
    **dict.fromkeys(("f1", "b1", "f2", "b2"), 4),
    **dict.fromkeys(("sv", "is"), 2),
    **dict.fromkeys(("ca", "ga"), 1),
}
"""How many digits follow; none behind other letters. Those of ``ho`` are one or none."""
_ADDRESSES = b"0123456789ABCDEF"
_DIGITS = frozenset(b"0123456789ABCDEFabcdef")
HOME_WAIT_S = 0.05
"""How long ``ho`` waits for its direction; of the right size, not measured."""
EXPIRY_S = 2.0
"""After how long a packet without its end is given up; so it is told, not measured."""


class Packet(NamedTuple):
    """One command; `broken`: it came to no end, or its data are no numbers."""

    address: str
    letters: str
    data: str
    broken: bool = False


class PacketReader:
    """Cuts what hosts send into packets by their fixed length; CR and LF are nothing, wherever they stand."""

    def __init__(self) -> None:
        self._held = b""
        self._last_s = 0.0

    def feed(self, data: bytes, now_s: float) -> list[Packet]:
        """The packets that are complete now."""
        packets = self.expire(now_s)
        self._last_s = now_s
        for byte in data.replace(b"\r", b"").replace(b"\n", b""):
            packets += self._take(byte)
        return packets

    def expire(self, now_s: float) -> list[Packet]:
        """What becomes of a packet that nothing more came to."""
        at_s = self.expires_at_s()
        return [self._done(broken=self._held[1:] != b"ho")] if at_s is not None and now_s >= at_s else []

    def expires_at_s(self) -> float | None:
        """When `expire` has something to do."""
        if not self._held:
            return None
        return self._last_s + (HOME_WAIT_S if self._held[1:] == b"ho" else EXPIRY_S)

    def _take(self, byte: int) -> list[Packet]:
        held = self._held
        if not held:
            self._held = bytes((byte,)) if byte in _ADDRESSES else b""
            return []
        if held[1:] == b"ho" and byte not in b"01":
            return [self._done(), *self._take(byte)]
        if len(held) >= 3 and byte not in _DIGITS:
            return [self._done(broken=True), *self._take(byte)]
        self._held += bytes((byte,))
        letters = self._held[1:3].decode("latin-1")
        if len(self._held) < 3 or self._held[1:] == b"ho":
            return []
        whole = 4 if letters == "ho" else 3 + _DATA.get(letters, 0)
        return [self._done()] if len(self._held) >= whole else []

    def _done(self, *, broken: bool = False) -> Packet:
        text, self._held = self._held.decode("latin-1"), b""
        return Packet(text[0], text[1:3], text[3:], broken)
