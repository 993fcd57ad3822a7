"""Whether two runs say the same, apart from what was measured: times, counts, versions, and the words of errors."""

from __future__ import annotations

from typing import Any

from duodaq.verify._results import Figure, Results


def skeleton(results: Results) -> dict[str, Any]:
    """What is left of results without all that may be another the next time."""
    index = {e.test: (e.category, e.shows, e.module, sorted(_sabotage(s) for s in e.sabotages)) for e in results.index}
    tests = {
        f"{t.test} ({t.mode})": (t.state, t.feature, sorted(t.features), sorted({_kind(f) for f in t.figures}))
        for t in results.tests
    }
    return {"kind": results.kind, "modes": results.modes, "sabotage": results.sabotage, "index": index, "tests": tests}


def differences(kept: Results, now: Results) -> list[str]:
    """A sentence for everything in which the two differ; empty if they say the same.

    Takeovers and coverage are compared only if both have measured them: of these, what was measured of.
    """
    one, other = skeleton(kept), skeleton(now)
    plain = ("kind", "modes", "sabotage")
    found = [f"{key}: {one[key]!r} there, {other[key]!r} now" for key in plain if one[key] != other[key]]
    for part in ("index", "tests"):
        found += _of_part(part, one[part], other[part])
    if kept.takeover and now.takeover and _kinds(kept.takeover) != _kinds(now.takeover):
        found.append("the takeovers were measured of other instruments")
    if kept.coverage and now.coverage:
        packages = [[package.name for package in one.packages] for one in (kept.coverage, now.coverage)]
        if packages[0] != packages[1]:
            found.append(f"coverage of {packages[0]} there, of {packages[1]} now")
    return found


def _of_part(part: str, one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    gone = [f"{part}: {name} is there, and not now" for name in one if name not in other]
    new = [f"{part}: {name} is not there, and now is" for name in other if name not in one]
    both = [name for name in one if name in other and one[name] != other[name]]
    return [*gone, *new, *(f"{part}: {name}: {_first(one[name], other[name])}" for name in both)]


def _first(one: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    pairs = ((a, b) for a, b in zip(one, other, strict=True) if a != b)
    a, b = next(pairs)
    return f"{a!r} there, {b!r} now"


def _sabotage(one: Any) -> tuple[str, str, str, str]:
    return one.name, one.feature, one.words, ",".join(one.modes)


def _kind(figure: Figure) -> tuple[str, ...]:
    return (figure.name, figure.unit, *(f"{name}={value}" for name, value in sorted(figure.of.items())))


def _kinds(figures: list[Figure]) -> set[tuple[str, ...]]:
    return {_kind(figure) for figure in figures}
