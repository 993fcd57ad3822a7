"""How a simulated instrument can be told to misbehave, and what that does to a reply."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Faults:
    """Misbehaviour on the line. The instrument itself goes on as always: a command whose reply is lost was done.

    Attributes:
        jitter_ms: Each reply comes after a random time in this range, in split writes; (0, 0) is off.
        delay_s: Each reply comes this much later.
        stall: Nothing is sent until this is cleared; then everything comes, late.
        drop: Probability that a reply is lost; `drop_next` loses the next so many replies for certain.
        garble: Probability that a reply is damaged (never its terminator); `garble_next` for certain.
        disconnect_after: Pull the plug after so many more replies; 0 is off.
        cut_in, cut_out: Pull the plug once, after so many more bytes heard, or said; at 0 before the next one.
        cycle_in, cycle_out: Lose the power once, likewise; it is back after `boot_s`, and meanwhile nothing is heard.
    """

    jitter_ms: tuple[float, float] = (0.0, 0.0)
    delay_s: float = 0.0
    stall: bool = False
    drop: float = 0.0
    drop_next: int = 0
    garble: float = 0.0
    garble_next: int = 0
    disconnect_after: int = 0
    cut_in: int | None = None
    cut_out: int | None = None
    cycle_in: int | None = None
    cycle_out: int | None = None
    boot_s: float = 0.1

    @classmethod
    def parse(cls, *texts: str) -> Faults:
        """Faults from words as people give them: ``jitter``, ``jitter_ms=1-20``, ``stall``, ``drop=0.05``.

        Raises:
            ValueError: No such fault, or not a value for it; the message says what is possible.
        """
        given: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.replace("-", "_", 1 if "=" not in text else 0).partition("=")
            key = {"jitter": "jitter_ms"}.get(name.strip(), name.strip().replace("-", "_"))
            if key not in _READ:
                raise ValueError(f"no fault {name!r}; there are: {', '.join(sorted(_READ))}")
            try:
                given[key] = _READ[key](value.strip())
            except ValueError as exc:
                raise ValueError(f"fault {key}: {value!r} is not a value for it") from exc
        return cls(**given)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Faults:
        """Faults from their fields by name, as `as_dict` gives them."""
        fields = dict(given)
        if "jitter_ms" in fields:
            low, high = fields["jitter_ms"]
            fields["jitter_ms"] = (float(low), float(high))
        return cls(**fields)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dataclasses.asdict(self)


def _range_ms(text: str) -> tuple[float, float]:
    if not text:
        return (1.0, 20.0)
    low, _, high = text.partition("-")
    return float(low), float(high or low)


_READ: dict[str, Callable[[str], Any]] = {
    "jitter_ms": _range_ms,
    "delay_s": float,
    "stall": lambda text: text in ("", "1", "true", "on"),
    "drop": float,
    "drop_next": lambda text: int(text or 1),
    "garble": float,
    "garble_next": lambda text: int(text or 1),
    "disconnect_after": lambda text: int(text or 1),
    "cut_in": int,
    "cut_out": int,
    "cycle_in": int,
    "cycle_out": int,
    "boot_s": float,
}


class Blow(Enum):
    """What happens to a line at a certain byte of it."""

    CUT = "cut"
    CYCLE = "cycle"


class Gremlin:
    """Applies `Faults` to replies, from a seed, and counts what it did."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.faults = faults
        self._left: Counter[str] = Counter()
        self._countdowns: dict[str, list[tuple[Blow, int]]] = {}
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Misbehave like this from now on."""
        self.faults = faults
        self._left = Counter(drop=faults.drop_next, garble=faults.garble_next, disconnect=faults.disconnect_after)
        given = {
            "in": [(Blow.CUT, faults.cut_in), (Blow.CYCLE, faults.cycle_in)],
            "out": [(Blow.CUT, faults.cut_out), (Blow.CYCLE, faults.cycle_out)],
        }
        self._countdowns = {
            way: [(blow, left) for blow, left in blows if left is not None] for way, blows in given.items()
        }

    @property
    def idle(self) -> bool:
        """Whether replies pass untouched."""
        return self.faults == _NONE

    def spoil(self, reply: bytes) -> list[tuple[float, bytes]]:
        """The pieces of `reply` that are really sent, each with the seconds to wait before it."""
        faults = self.faults
        if self._strikes("drop", faults.drop):
            return []
        if self._strikes("garble", faults.garble):
            reply = self._damage(reply)
        low, high = faults.jitter_ms
        if high <= 0:
            return [(faults.delay_s, reply)]
        self.done["jittered"] += 1
        waits = [self._random.uniform(low, high) / 1e3 for _ in range(3)]
        cuts = sorted(self._random.randrange(len(reply) + 1) for _ in range(2))
        pieces = [reply[: cuts[0]], reply[cuts[0] : cuts[1]], reply[cuts[1] :]]
        waits = [faults.delay_s + waits[0], waits[1] / 3, waits[2] / 3]
        return [(wait, piece) for wait, piece in zip(waits, pieces, strict=True) if piece]

    def pulls_plug(self) -> bool:
        """Whether the plug is pulled after the reply just sent."""
        if not self._left["disconnect"]:
            return False
        self._left["disconnect"] -= 1
        return self._left["disconnect"] == 0

    def heard(self, data: bytes) -> tuple[bytes, Blow | None]:
        """What of `data` still reaches the instrument, and what happens to the line then."""
        return self._count_down("in", data)

    def said(self, data: bytes) -> tuple[bytes, Blow | None]:
        """What of `data` still leaves, and what happens to the line then."""
        return self._count_down("out", data)

    def _count_down(self, way: str, data: bytes) -> tuple[bytes, Blow | None]:
        blows = self._countdowns[way]
        if not blows or not data:
            return data, None
        blow, left = min(blows, key=lambda one: one[1])
        if left > len(data):
            self._countdowns[way] = [(one, count - len(data)) for one, count in blows]
            return data, None
        self._countdowns = {"in": [], "out": []}  # once
        self.done[blow.value] += 1
        return data[:left], blow

    def _strikes(self, kind: str, probability: float) -> bool:
        if self._left[kind] > 0:
            self._left[kind] -= 1
        elif not (probability and self._random.random() < probability):
            return False
        self.done[kind] += 1
        return True

    def _damage(self, reply: bytes) -> bytes:
        body = reply.rstrip(b"\r\n")
        damaged = bytearray(body)
        for _ in range(max(1, len(body) // 4)):
            if damaged:
                damaged[self._random.randrange(len(damaged))] = self._random.choice(b"?#~\x7f\xff\x80@")
        return bytes(damaged) + reply[len(body) :]


_NONE = Faults()
