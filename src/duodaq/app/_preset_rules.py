"""Decisions about the settings of a preset, as pure functions: what it keeps, what it may set, in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

from duodaq.app._panel import panel_of
from duodaq.app._preset_row import Row
from duodaq.model import InstrumentDefinition

_OFF = ("", "0", "off", "closed", "close", "shut", "disabled", "no", "false", "none")
_EMITTING = re.compile(
    r"(^|[._ ])(arm|armed|shutter|open|opened|is_open|output|output_enabled|outputs?_on|source_enabled|emission|emit"
    r"|emitting|laser|lasing|lamp|pump|enable|enabled|power_on|on|heater)$",
    re.IGNORECASE,
)
_MOVING = re.compile(r"(^|[._ ])(position|target|setpoint_position|angle)$", re.IGNORECASE)


def left_to_a_person(definition: InstrumentDefinition, setting: Mapping[str, Any], then: Any) -> str:
    """Why a preset does not set this; empty if it does."""
    name: str = setting["name"]
    named = () if isinstance(definition.passive, bool) else definition.passive
    if name in named or definition.passive is True or is_off(then):
        return ""
    if _MOVING.search(name):
        return "a preset moves nothing"
    if _EMITTING.search(name) or (is_switch(then) and (setting["emits"] or definition.runtime == "v2")):
        return "a preset switches nothing on, and opens nothing"
    return ""


def settings_of(definition: InstrumentDefinition) -> list[dict[str, Any]]:
    """What of an instrument a preset keeps: what the lab file declares, in its order, then what its actor can set."""
    offered = {one["name"]: one for one in panel_of(definition)["settings"]}
    known = {name: one for name, one in offered.items() if one["settable"] and not name.endswith(".limits")}
    declared = [name for name in (*definition.settings, *definition.watched) if name in known or name not in offered]
    found = [known.get(name, {"name": name, "unit": "", "emits": False}) for name in dict.fromkeys(declared)]
    if definition.runtime == "v4":
        found += [one for name, one in known.items() if name not in declared]
    return found


def is_off(value: Any) -> bool:
    """Whether a switch of that value is off."""
    if isinstance(value, bool | int | float):
        return not value
    return isinstance(value, str) and value.strip().lower() in _OFF


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
    return 0 if row.what == "set" and is_off(row.then) and (_EMITTING.search(row.name) or is_switch(row.then)) else 1


def is_switch(value: Any) -> bool:
    words = {"on", "off", "open", "opened", "closed", "enabled", "disabled"}
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in words)


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list"
