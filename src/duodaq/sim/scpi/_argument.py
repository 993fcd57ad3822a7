"""The parameters of one unit, taken one by one with the error an instrument gives for each thing wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._grammar import Block, Expression, Number, Param, Text, Word

__all__ = ["Args", "keyword_forms", "matches", "scale"]

_PREFIXES = {"G": 1e9, "MA": 1e6, "K": 1e3, "": 1.0, "M": 1e-3, "U": 1e-6, "N": 1e-9, "P": 1e-12, "F": 1e-15}
_ROUNDS_TO_ZERO = 0.5
_MEGA_UNITS = ("OHM", "HZ")  # SCPI-99 7.2: M is mega before these two, milli elsewhere


def keyword_forms(name: str) -> tuple[str, str]:
    """Short form (what is not lower case) and long form of a keyword printed like ``VOLTage``, in upper case."""
    short = "".join(char for char in name if not char.islower())
    return short, name.upper()


def matches(name: str, written: str) -> bool:
    """Whether `written` is the short or the long form of `name`."""
    return written.upper() in keyword_forms(name)


def scale(number: Number, unit: str) -> float:
    """The value of a number in `unit`, its suffix applied.

    Raises:
        ScpiFault: -138 if the quantity has no unit, -131 if this is not a multiple of it.
    """
    if not number.suffix:
        return number.value
    if not unit:
        raise ScpiFault(-138)
    unit = unit.upper()
    prefix = number.suffix.removesuffix(unit) if number.suffix.endswith(unit) else None
    if prefix == "M" and unit in _MEGA_UNITS:
        prefix = "MA"
    if prefix is None or prefix not in _PREFIXES:
        raise ScpiFault(-131)
    return number.value * _PREFIXES[prefix]


class Args:
    """What followed the header; each method takes the next parameter."""

    def __init__(self, params: Iterable[Param], suffixes: tuple[int, ...] = ()) -> None:
        self._params = list(params)
        self.suffixes = suffixes

    def __len__(self) -> int:
        return len(self._params)

    def end(self) -> None:
        """There must be no more.

        Raises:
            ScpiFault: -108.
        """
        if self._params:
            raise ScpiFault(-108)

    def number(
        self,
        low: float,
        high: float,
        default: float | None = None,
        *,
        unit: str = "",
        words: Mapping[str, float] | None = None,
    ) -> float:
        """A number within its limits, or MIN, MAX, DEF (where there is a default), or one of `words`."""
        param = self._next()
        if isinstance(param, Word):
            return self._special(param.text, low, high, default, words or {})
        if not isinstance(param, Number):
            raise ScpiFault(-104)
        value = scale(param, unit)
        if not low * (1 - 1e-9) - 1e-30 <= value <= high * (1 + 1e-9) + 1e-30:
            raise ScpiFault(-222)
        return value

    def integer(self, low: int, high: int, default: int | None = None) -> int:
        """A whole number; a decimal one is rounded, as 488.2 has it."""
        return round(self.number(low, high, default))

    def limit(self, low: float, high: float, default: float | None = None) -> float | None:
        """The optional MIN, MAX or DEF of a query form; None if it was not given."""
        if not self._params:
            return None
        param = self._next()
        if not isinstance(param, Word):
            raise ScpiFault(-104)
        return self._special(param.text, low, high, default, {})

    def boolean(self) -> bool:
        """ON, OFF, or a number that rounds to zero or not."""
        param = self._next()
        if isinstance(param, Number):
            return abs(scale(param, "")) > _ROUNDS_TO_ZERO
        if not isinstance(param, Word):
            raise ScpiFault(-104)
        if param.text not in ("ON", "OFF"):
            raise ScpiFault(-224)
        return param.text == "ON"

    def word(self, *names: str) -> str:
        """One of `names` in either form; returns the short one."""
        param = self._next()
        if not isinstance(param, Word):
            raise ScpiFault(-104)
        for name in names:
            if matches(name, param.text):
                return keyword_forms(name)[0]
        raise ScpiFault(-224)

    def text(self) -> str:
        """A quoted string."""
        param = self._next()
        if not isinstance(param, Text):
            raise ScpiFault(-104)
        return param.text

    def block(self) -> bytes:
        """Arbitrary bytes."""
        param = self._next()
        if not isinstance(param, Block):
            raise ScpiFault(-104)
        return param.data

    def channels(self) -> tuple[int, ...]:
        """A channel list such as ``(@1,3:5)``."""
        param = self._next()
        if not isinstance(param, Expression):
            raise ScpiFault(-104)
        return param.channels()

    def next_is_word(self, name: str) -> bool:
        """Whether the next parameter is this word; it is taken only if so."""
        param = self._params[0] if self._params else None
        if isinstance(param, Word) and matches(name, param.text):
            del self._params[0]
            return True
        return False

    def next_is_extreme(self) -> bool:
        """Whether the next parameter is MIN or MAX; it is taken only if so."""
        return self.next_is_word("MINimum") or self.next_is_word("MAXimum")

    def drop(self) -> None:
        """Accept whatever is left."""
        self._params.clear()

    def _next(self) -> Param:
        if not self._params:
            raise ScpiFault(-109)
        return self._params.pop(0)

    def _special(self, word: str, low: float, high: float, default: float | None, words: Mapping[str, float]) -> float:
        if matches("MINimum", word):
            return low
        if matches("MAXimum", word):
            return high
        if matches("DEFault", word) and default is not None:
            return default
        for name, value in words.items():
            if matches(name, word):
                return value
        raise ScpiFault(-224)
