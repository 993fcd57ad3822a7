"""What is the same, and what is not: the decisions of a shadow, without a lab, a clock or a wire."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from duodaq.ports import Deed
from duodaq.units import same_unit

_AXIS = re.compile(r"axis (\d+): (.*)")
_FACTORS = (
    1e3,
    1e-3,
    1e6,
    1e-6,
    1e9,
    1e-9,
    1e2,
    1e-2,
    10.0,
    0.1,
    25.4,
    1 / 25.4,
    57.29577951308232,
    1 / 57.29577951308232,
)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What counts as the same.

    Attributes:
        relative: Between the numbers of two orders; drivers write six digits, so less than 5e-6 means nothing.
        of_values: Between two measurements; they are made of the same reply, all the digits of which both have.
        absolute: Beside either, in the unit of the value.
        rate: By how much of V2's rate V4 may ask less often.
        window_s: Within so long of each other two writes may stand for the same.
        least_polls: So many readings are needed before a rate says anything.
    """

    relative: float = 1e-5
    of_values: float = 1e-9
    absolute: float = 0.0
    rate: float = 0.4
    window_s: float = 5.0
    least_polls: int = 25


class Finding(NamedTuple):
    """A difference: its kind, what it is about, and both sides as they were said."""

    kind: str
    subject: str
    v2: str
    v4: str
    t_ns: int = 0


class Written(NamedTuple):
    """An order on one side."""

    t_ns: int
    deed: Deed


class Value(NamedTuple):
    """A measurement of one side, and the exchanges that it was made of."""

    channel: str
    t_ns: int
    value: float
    unit: str
    exchanges: frozenset[int] = frozenset()


def number_of(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def difference(one: float, other: float, tolerances: Tolerances, relative: float | None = None) -> str:
    """How two numbers differ: ``rounding``, ``unit`` or ``value``; empty if they do not.

    Args:
        one: A number.
        other: Another.
        tolerances: What counts as the same.
        relative: Instead of that of orders.
    """
    if one == other or (math.isnan(one) and math.isnan(other)):
        return ""
    wanted = tolerances.relative if relative is None else relative
    if math.isclose(one, other, rel_tol=wanted, abs_tol=tolerances.absolute):
        return ""
    if one and other and math.isfinite(one) and math.isfinite(other):
        if any(math.isclose(other / one, factor, rel_tol=1e-4) for factor in _FACTORS):
            return "unit"
        if _is_rounded(one, other) or _is_rounded(other, one):
            return "rounding"
    return "value"


def _is_rounded(whole: float, rounded: float) -> bool:
    """Whether `rounded` has fewer digits of `whole`: at most one unit of its last digit away."""
    text = f"{rounded:.12g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        places = len(mantissa.partition(".")[2]) - int(exponent)
    elif "." in text:
        places = len(text.partition(".")[2])
    else:
        places = len(text.rstrip("0")) - len(text)  # 780 has one digit less than 777
    digits = len(re.sub(r"[^0-9]", "", text).lstrip("0"))
    return digits <= 8 and abs(whole - rounded) <= 10.0**-places and abs(whole - rounded) < abs(whole)


def compare_values(v2: Value, v4: Value, tolerances: Tolerances) -> Finding | None:
    """What differs between two measurements of the same reply; None if nothing does."""
    said = (f"{v2.value:.10g} {v2.unit}".strip(), f"{v4.value:.10g} {v4.unit}".strip())
    if not same_unit(v2.unit, v4.unit):
        return Finding("unit", v2.channel, *said, v2.t_ns)
    kind = difference(v2.value, v4.value, tolerances, tolerances.of_values)
    return Finding(kind, v2.channel, *said, v2.t_ns) if kind else None


def same_order(one: Deed, other: Deed, tolerances: Tolerances) -> str:
    """How two orders of one subject differ; empty if they mean the same."""
    first, second = number_of(one.value), number_of(other.value)
    if first is not None and second is not None:
        return difference(first, second, tolerances)
    return "" if one.value.strip().upper() == other.value.strip().upper() else "value"


def compare_orders(
    v2: Sequence[Written], v4: Sequence[Written], tolerances: Tolerances
) -> tuple[list[tuple[Written, Written]], list[Finding]]:
    """The orders of both sides that stand for each other; what has another value or axis, is missing or extra."""
    left_v2, left_v4 = list(v2), list(v4)
    matched: list[tuple[Written, Written]] = []
    findings: list[Finding] = []
    for want in (_means_the_same, _has_the_subject, _is_on_another_axis):
        for mine in list(left_v4):
            other = next((o for o in left_v2 if _is_near(o, mine, tolerances) and want(o, mine, tolerances)), None)
            if other is None:
                continue
            left_v2.remove(other)
            left_v4.remove(mine)
            matched.append((other, mine))
            kind = "axis" if want is _is_on_another_axis else same_order(other.deed, mine.deed, tolerances)
            if kind:
                findings.append(Finding(kind, other.deed.subject, _said(other), _said(mine), other.t_ns))
    findings += [Finding("missing", o.deed.subject, _said(o), "", o.t_ns) for o in left_v2]
    findings += [Finding("extra", m.deed.subject, "", _said(m), m.t_ns) for m in left_v4]
    return matched, findings


def _is_near(one: Written, other: Written, tolerances: Tolerances) -> bool:
    return abs(one.t_ns - other.t_ns) <= tolerances.window_s * 1e9


def means_the_same(one: Written, other: Written, tolerances: Tolerances) -> bool:
    """Whether two orders stand for each other, and nothing of them differs."""
    return _is_near(one, other, tolerances) and _means_the_same(one, other, tolerances)


def _means_the_same(one: Written, other: Written, tolerances: Tolerances) -> bool:
    return one.deed.subject == other.deed.subject and not same_order(one.deed, other.deed, tolerances)


def _has_the_subject(one: Written, other: Written, tolerances: Tolerances) -> bool:
    return one.deed.subject == other.deed.subject


def _is_on_another_axis(one: Written, other: Written, tolerances: Tolerances) -> bool:
    mine, its = _AXIS.fullmatch(one.deed.subject), _AXIS.fullmatch(other.deed.subject)
    both = mine is not None and its is not None and mine[1] != its[1] and mine[2] == its[2]
    return both and not same_order(one.deed, other.deed, tolerances)


def _said(order: Written) -> str:
    return f"{order.deed.subject} {order.deed.value}".strip()


def compare_rate(subject: str, v2: int, v4: int, seconds: float, tolerances: Tolerances) -> Finding | None:
    """Whether V4 asks less often than V2 does; None if not, or if nobody can tell yet."""
    if v2 < tolerances.least_polls or not v4 or v4 >= v2 * (1 - tolerances.rate) - 1:
        return None
    return Finding("rate", subject, f"{v2 / seconds:.3g} a second", f"{v4 / seconds:.3g} a second")


def compare_axes(v2: Mapping[str, int], v4: Mapping[str, int], tolerances: Tolerances) -> list[Finding]:
    """Questions that one side asks of an axis, and the other of another axis only.

    Args:
        v2: How often V2 asked each thing.
        v4: How often V4 did.
        tolerances: How often V2 must have asked before this says anything.
    """
    findings: list[Finding] = []
    for subject, count in v2.items():
        mine = _AXIS.fullmatch(subject)
        if mine is None or count < tolerances.least_polls or v4.get(subject):
            continue
        others = [s for s in v4 if s not in v2 and (o := _AXIS.fullmatch(s)) and o[2] == mine[2]]
        findings += [Finding("axis", subject, f"{subject}?", f"{other}?") for other in others[:1]]
    return findings


def compare_sources(channel: str, v2: str, v4: Collection[str]) -> Finding | None:
    """Whether a channel tells of one axis in V2 and of another one in V4; None if not, or if nobody can tell.

    Args:
        channel: Its name.
        v2: The question whose answer it is in V2.
        v4: The questions whose answers it is made of in V4.
    """
    mine = _AXIS.fullmatch(v2)
    if mine is None or v2 in v4:
        return None
    other = next((s for s in v4 if (o := _AXIS.fullmatch(s)) and o[2] == mine[2]), None)
    return None if other is None else Finding("axis", f"channel {channel}", f"{v2}?", f"{other}?")


def compare_ends(v2: Collection[bytes], v4: Collection[bytes]) -> Finding | None:
    """Whether V4 writes commands without a line end, where V2 always has one; None if not."""
    if not v2 or b"" in v2 or b"" not in v4:
        return None
    return Finding("end", "commands", f"end with {ends_in_words(v2)}", "have no end")


def ends_in_words(ends: Collection[bytes]) -> str:
    """Line ends as they are written in a program."""
    return " or ".join(sorted(repr(end)[2:-1] for end in ends))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 95th and 99th percentile, as observed; empty without values."""
    ranked = sorted(values)
    if not ranked:
        return {}
    return {f"p{p}": ranked[min(len(ranked) - 1, math.ceil(p / 100 * len(ranked)) - 1)] for p in (50, 95, 99)}
