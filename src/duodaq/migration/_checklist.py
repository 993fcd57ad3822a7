"""What must be so before an instrument is moved for good: computed where it can be, ticked by name where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from duodaq.model import InstrumentDefinition
from duodaq.ports import PortCodec

Name = Literal["driver", "contract", "shadow", "safe state", "stop", "config", "docs"]
NAMES: tuple[Name, ...] = ("driver", "contract", "shadow", "safe state", "stop", "config", "docs")
TICKABLE: frozenset[Name] = frozenset({"contract", "safe state", "stop", "config", "docs"})
"""What a person may answer for. That a driver exists, and what the shadow saw, nobody can."""


class Item(NamedTuple):
    """One line of the list: whether it is met, why, and who says so (empty: it was computed)."""

    name: str
    met: bool
    why: str
    by: str = ""


_LEAST_VALUES = 10
"""So many measurements a shadow must have compared."""


@dataclass
class Facts:
    """What is known of an instrument that is to move.

    Attributes:
        v2: As it lives now.
        v4: As it will; None if V4 has no driver, and `left` says why.
        unsaid: What of its stanza V4 could not say.
        shadow: The last report of a shadow, as plain values.
        ticks: Who has ticked what.
        least_shadow_s: For how long a shadow must have looked.
    """

    v2: InstrumentDefinition
    v4: InstrumentDefinition | None
    codec: PortCodec | None = None
    left: str = ""
    unsaid: list[str] = field(default_factory=list[str])
    shadow: Mapping[str, Any] | None = None
    ticks: Mapping[str, str] = field(default_factory=dict[str, str])
    least_shadow_s: float = 60.0


def checklist(facts: Facts) -> list[Item]:
    """Every line of an instrument's list."""
    computed = {name: rule(facts) for name, rule in _RULES.items()}
    return [_item(name, *computed[name], facts) for name in NAMES]


def unmet(items: list[Item]) -> list[str]:
    """What is not met, each as a sentence."""
    return [f"{item.name}: {item.why}" for item in items if not item.met]


def _item(name: Name, met: bool, why: str, facts: Facts) -> Item:
    who = facts.ticks.get(name, "")
    if not met and who and name in TICKABLE:
        return Item(name, True, f"{why}; {who} answers for it", who)
    return Item(name, met, why)


def _driver(facts: Facts) -> tuple[bool, str]:
    if facts.v4 is None:
        return False, facts.left or "V4 has no driver for it"
    return True, str(facts.v4.driver)


def _contract(facts: Facts) -> tuple[bool, str]:
    if _is_built_in(facts):
        return True, "its contract suite runs with every build of duodaq"
    return False, "nobody has said that its contract suite passes"


def _shadow(facts: Facts) -> tuple[bool, str]:
    report = facts.shadow
    if report is None:
        return False, "there was no shadow yet"
    lasted_s, compared = float(report["lasted_s"]), int(report["values"]["compared"])
    if not report["within"]:
        return False, f"the shadow found {len(report['findings'])} differences"
    if facts.v2.polls and compared < _LEAST_VALUES:
        return False, f"the shadow compared {compared} measurements, and {_LEAST_VALUES} are wanted"
    if lasted_s < facts.least_shadow_s:
        return False, f"the shadow looked for {lasted_s:.0f} s, and {facts.least_shadow_s:.0f} s are wanted"
    return True, f"nothing differed in {lasted_s:.0f} s, in {compared} measurements"


def _safe_state(facts: Facts) -> tuple[bool, str]:
    if facts.v2.passive is True:
        return True, "nothing of it moves or emits"
    declared = facts.v2.safe if facts.v4 is None else facts.v4.safe
    if not declared:
        return False, "its stanza declares no safe state"
    return True, ", ".join(f"{cause}: {action.kind}" for cause, action in declared.items())


def _stop(facts: Facts) -> tuple[bool, str]:
    if facts.v2.passive is True:
        return True, "nothing of it moves or emits"
    if facts.v2.stop is not None:
        return True, f"its stanza gives the bytes {facts.v2.stop!r}"
    if facts.codec is not None and facts.codec.stop_bytes(None) is not None:
        return True, f"its codec knows the bytes {facts.codec.stop_bytes(None)!r}"
    return False, "no bytes are known that stop it"


def _config(facts: Facts) -> tuple[bool, str]:
    if facts.v4 is None:
        return False, "there is no V4 stanza"
    if facts.unsaid:
        return False, f"V4 cannot say: {'; '.join(facts.unsaid)}"
    return True, "all of its stanza is said in V4"


def _docs(facts: Facts) -> tuple[bool, str]:
    if _is_built_in(facts):
        return True, "docs/reference/instruments.md"
    return False, "nobody has said that it is documented"


def _is_built_in(facts: Facts) -> bool:
    return facts.v4 is not None and str(facts.v4.driver).startswith("duodaq:")


_RULES = {
    "driver": _driver,
    "contract": _contract,
    "shadow": _shadow,
    "safe state": _safe_state,
    "stop": _stop,
    "config": _config,
    "docs": _docs,
}
