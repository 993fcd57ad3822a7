"""Durations and quantities as people write them in a lab file: ``"5 s"``, ``"200 ms"``, ``"never"``."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["SYMBOLS", "convert", "format_quantity", "is_number", "number_in", "parse_duration_s", "same_unit"]

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(us|µs|ms|s|min|h|d)\s*$")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIX = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BASES = ("m", "s", "V", "A", "W", "Hz", "Ohm", "Ω", "F", "K")

_WORDS = {
    "V": "volt", "A": "amp", "W": "watt", "Hz": "hertz", "s": "second", "Ω": "ohm", "m": "meter", "K": "kelvin",
    "°C": "celsius", "F": "farad", "T": "tesla", "deg": "degree", "%": "percent", "dB": "decibel",
    "mm": "millimeter", "nm": "nanometer", "ms": "millisecond", "mV": "millivolt", "mA": "milliamp", "kHz": "kilohertz",
    "dBm": "dbm",
}  # fmt: skip
SYMBOLS = {form: symbol for symbol, word in _WORDS.items() for form in (word, f"{word}s", f"{word}eres", f"{word}ere")}
"""From a unit's English name, in lower case, to its symbol."""
_SPELLINGS = {"Ohm": "Ω", "Ohms": "Ω", "\u2126": "Ω", "°": "deg", "degC": "°C", "sec": "s", "Sec": "s"}


def parse_duration_s(text: str | float) -> float | None:
    """Seconds for ``"5 s"``, ``"200 ms"``, ``"1.5 min"``; None for ``"never"``. A bare number is seconds.

    Raises:
        ValueError: Not a duration, or negative.
    """
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a duration")
    if isinstance(text, int | float):
        if text < 0:
            raise ValueError(f"{text!r} is negative; a duration is not")
        return float(text)
    if text.strip() == "never":
        return None
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f'{text!r} is not a duration; write for example "5 s", "200 ms" or "never"')
    return float(match[1]) * _SECONDS[match[2]]


def convert(value: float, unit: str, target: str) -> float:
    """`value` given in `unit`, expressed in `target`; both SI units with or without prefix (mm, µm, nW, V …).

    Raises:
        ValueError: The two are not the same kind of quantity.
    """
    if unit == target:
        return value
    (factor, base), (target_factor, target_base) = _split(unit), _split(target)
    if base != target_base:
        raise ValueError(f"cannot convert {unit!r} to {target!r}")
    return value * factor / target_factor


def same_unit(one: str, other: str) -> bool:
    """Whether two texts mean one unit, however they spell it: ``Ohm`` and ``Ω``, ``um`` and ``µm``, ``Volts`` and V."""
    return _symbol(one) == _symbol(other)


def is_number(given: Any) -> bool:
    """Whether it is one number; also one of numpy's, or with a unit, but neither text nor a truth value."""
    return hasattr(given, "__float__") and not isinstance(given, bool) and getattr(given, "shape", ()) == ()


def number_in(unit: str, given: Any) -> float:
    """What is `given`, in `unit`. A bare number is in it; what says its own unit is converted, or refused.

    A quantity of pint's, a reading of a lab's and a point of xarray's say theirs. Python's `float` would take the bare
    number of most of them, and radians of an angle.

    Raises:
        TypeError: It is no number, or of another kind of unit.
    """
    if not is_number(given):
        raise TypeError(f"{given!r} is no number")
    own = getattr(given, "unit", None) or getattr(given, "attrs", {}).get("units")
    try:
        if hasattr(given, "magnitude") and hasattr(given, "to"):
            return float(given.to(unit).magnitude)
        if not isinstance(own, str) or same_unit(own, unit):
            return float(given)
        return convert(float(given), _symbol(own), _symbol(unit))
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:  # pint's own are of these kinds
        raise TypeError(f"{given!s} cannot be told in {unit or 'a number without a unit'}") from error


def format_quantity(value: float, unit: str, digits: int = 4) -> str:
    """A value with its unit for a person: ``1.234 mm``."""
    return f"{value:.{digits}g} {unit}".rstrip()


def _symbol(text: str) -> str:
    plain = text.strip().replace("\u03bc", "µ").replace("\u2126", "Ω")
    found = _SPELLINGS.get(plain) or SYMBOLS.get(plain.lower(), plain)
    if found.endswith(("Ohm", "Ohms")):
        found = found.removesuffix("s").removesuffix("Ohm") + "Ω"
    return f"µ{found[1:]}" if found.startswith("u") and found[1:] in _BASES else found


def _split(unit: str) -> tuple[float, str]:
    for base in _BASES:
        if unit.endswith(base) and unit[: -len(base)] in _PREFIX:
            return _PREFIX[unit[: -len(base)]], base
    return 1.0, unit
