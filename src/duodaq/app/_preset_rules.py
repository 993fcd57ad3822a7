"""Decisions about the settings of a preset, as pure functions: what it keeps, what it may set, in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from duodaq.app._panel import panel_of
from duodaq.app._preset_row import Row
from duodaq.model import (
    InstrumentDefinition,
    is_level,
    is_plain_level,
    may_guard,
    may_move_by_name,
    may_switch,
    turns_off,
    turns_on,
)

_ALLOW = 'a person does that, or the lab file allows it: passive = ["{name}"]'
_ALLOW_LEVEL = "the lab file allows it by limits.{name} = [lowest, highest]"


def left_to_a_person(definition: InstrumentDefinition, setting: Mapping[str, Any], now: Any, then: Any) -> str:
    """Why a preset does not set this; empty if it does.

    What is not known to be harmless is left. The lab file's word counts (`passive`; `limits`, of numbers), then that of
    an actor of duodaq's own; of any other only what is neither a switch nor a goal nor a level, by name and by value.
    """
    name: str = setting["name"]
    named = () if isinstance(definition.passive, bool) else definition.passive
    if name in named or definition.passive is True:
        return ""
    allow = _ALLOW.format(name=name) if definition.runtime == "v2" else "a person does that"
    if may_move_by_name(name):
        return f"a preset moves nothing; {allow}"
    if turns_off(name, then):
        return ""
    trust = _trust_in(definition)
    is_limited = _is_number(then) and name in definition.limits
    is_plain = _is_number(then) and is_plain_level(name) and not turns_on(now, then)
    if not is_plain and (may_switch(name) or (trust != "own" and may_guard(name))):
        return f"a preset switches nothing on, and opens nothing; {allow}"
    may_emit = setting["emits"] or trust == "none"
    if turns_on(now, then) and (may_emit or trust != "own"):
        return f"a preset switches nothing on, and opens nothing; {allow}"
    if is_limited or not (may_emit or (_is_number(then) and is_level(name))):
        return ""
    what = "it may move or emit" if trust != "none" else "what it does is not known"
    return f"{what}; {_ALLOW_LEVEL.format(name=name) if _is_number(then) else allow}"


def _trust_in(definition: InstrumentDefinition) -> str:
    """How far what is said of the settings is known: an ``own`` actor's, ``declared`` by a lab's, or ``none``."""
    from duodaq.v4 import BUILT_IN  # who attaches to a lab elsewhere loads no runtime

    if definition.runtime == "v2" or (isinstance(definition.driver, str) and definition.driver not in BUILT_IN):
        return "none"
    return "own" if isinstance(definition.driver, str) or definition.driver in BUILT_IN.values() else "declared"


def settings_of(definition: InstrumentDefinition) -> list[dict[str, Any]]:
    """What of an instrument a preset keeps: what the lab file declares, in its order, then what its actor can set."""
    offered = {one["name"]: one for one in panel_of(definition)["settings"]}
    known = {name: one for name, one in offered.items() if one["settable"] and not name.endswith(".limits")}
    declared = [name for name in (*definition.settings, *definition.watched) if name in known or name not in offered]
    found = [known.get(name, {"name": name, "unit": "", "emits": True}) for name in dict.fromkeys(declared)]
    if definition.runtime == "v4":
        found += [one for name, one in known.items() if name not in declared]
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same setting: numbers as far as a device can tell them apart."""
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-15)
    if kind_of(one) != "a list" or kind_of(other) != "a list":
        return kind_of(one) == kind_of(other) and bool(one == other)
    ours, theirs = cast("list[Any]", one), cast("list[Any]", other)
    return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_later(row: Row) -> int:
    """What makes safe is first."""
    return 0 if row.what == "set" and turns_off(row.name, row.then) else 1


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list"
