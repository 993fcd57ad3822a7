"""Durations and quantities as people write them in a lab file: ``"5 s"``, ``"200 ms"``, ``"never"``."""

from __future__ import annotations

import difflib
import re
from typing import Any

__all__ = [
    "SYMBOLS",
    "convert",
    "format_quantity",
    "is_known",
    "is_number",
    "number_in",
    "parse_duration_s",
    "ratio",
    "same_unit",
    "unit_meant",
]

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(us|µs|ms|s|min|h|d)\s*$")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_POWERS = {"p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}
_BASES = ("m", "s", "V", "A", "W", "Hz", "Ohm", "Ω", "F", "K")

_WORDS = {
    "V": "volt", "A": "amp", "W": "watt", "Hz": "hertz", "s": "second", "Ω": "ohm", "m": "meter", "K": "kelvin",
    "°C": "celsius", "F": "farad", "T": "tesla", "deg": "degree", "%": "percent", "dB": "decibel",
    "mm": "millimeter", "nm": "nanometer", "ms": "millisecond", "mV": "millivolt", "mA": "milliamp", "kHz": "kilohertz",
    "dBm": "dbm",
}  # fmt: skip
SYMBOLS = {form: symbol for symbol, word in _WORDS.items() for form in (word, f"{word}s", f"{word}eres", f"{word}ere")}
"""From a unit's English name, in lower case, to its symbol."""
_PREFIXED = (
    "m s V A W Hz Ω F K g N Pa J C T H S Wb mol cd lm lx Bq Gy Sv eV bar L l B bit rad sr G Torr VA Wh Ah Vpp Vrms "
    "Arms Sa counts cts dBm pc Da Ci Å"
)
_PLAIN = (
    "min h d yr deg ° °C °F arcmin arcsec % ‰ ppm ppb dB dBm dBc dBV e- e ph photons count cps px pixel pixels step "
    "steps pulses ticks rev turns rpm atm mmHg psi in inch ft mil a.u. arb. u. au ADU DN ops events samples frames "
    "points OD waves rtHz sqrtHz"
)
_PREFIXES = frozenset("afpnuµmcdkMGT")
_ALONE, _WITH_PREFIX = frozenset(_PLAIN.split()), frozenset(_PREFIXED.split())
_POWER = re.compile(r"(?:\^|\*\*)?[-+]?\d+$|[⁻⁺]?[¹²³⁴]+$")
_LIKE = 0.74
"""How much a text has to resemble a unit's name to be a misspelling of it: "Wat" and "Vlots" do, "clicks" does not."""

_SPELLINGS = {"Ohm": "Ω", "Ohms": "Ω", "\u2126": "Ω", "°": "deg", "degC": "°C", "degF": "°F", "sec": "s", "Sec": "s"}


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
    times, parts = ratio(unit, target)
    return value * times / parts


def ratio(unit: str, target: str) -> tuple[float, float]:
    """By what a value in `unit` is multiplied, and then divided, to be in `target`; one of them is 1.

    Either is a whole power of ten, which a float has exactly, and 1e-6 not: 5 mm are 5000 µm, and not beyond that.

    Raises:
        ValueError: The two are not the same kind of quantity.
    """
    if unit == target:
        return 1.0, 1.0
    (power, base), (target_power, target_base) = _split(unit), _split(target)
    if base != target_base:
        raise ValueError(f"cannot convert {unit!r} to {target!r}")
    return 10.0 ** max(0, power - target_power), 10.0 ** max(0, target_power - power)


def same_unit(one: str, other: str) -> bool:
    """Whether two texts mean one unit, however they spell it: ``Ohm`` and ``Ω``, ``um`` and ``µm``, ``Volts`` and V."""
    return _symbol(one) == _symbol(other)


def is_known(unit: str) -> bool:
    """Whether `unit` is empty or made of units that laboratories use, with prefixes, powers, products and quotients."""
    parts = [part for part in re.split(r"[/·*\s()√]+", unit.replace("**", "^")) if part]
    return all(part.isdecimal() or _is_one(part) for part in parts)


def unit_meant(unit: str) -> str | None:
    """What an unknown unit is probably a misspelling of, as a symbol; None if it is known, or like none."""
    if is_known(unit):
        return None
    by_case = {one.lower(): one for one in sorted({*_ALONE, *_WITH_PREFIX, *_WORDS})}
    by_case |= {f"{prefix}{base}".lower(): f"{prefix}{base}" for prefix in ("k", "n", "m") for base in _WORDS}
    if (found := by_case.get(unit.strip().lower())) is not None:
        return found
    near = difflib.get_close_matches(unit.strip().lower(), SYMBOLS, n=1, cutoff=_LIKE)
    return SYMBOLS[near[0]] if near else None


def _is_one(part: str) -> bool:
    for plain in (part, _POWER.sub("", part)):
        symbol = _symbol(plain)
        if symbol in _ALONE or symbol in _WITH_PREFIX or (symbol[:1] in _PREFIXES and symbol[1:] in _WITH_PREFIX):
            return True
        if symbol.startswith("da") and symbol[2:] in _WITH_PREFIX:
            return True
    return False


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


def _split(unit: str) -> tuple[int, str]:
    for base in _BASES:
        if unit.endswith(base) and unit[: -len(base)] in _POWERS:
            return _POWERS[unit[: -len(base)]], base
    return 0, unit
