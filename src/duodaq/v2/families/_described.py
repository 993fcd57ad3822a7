"""What ophyd and ophyd-async say of a signal, in the words of Bluesky's event model: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from duodaq.errors import RefusedError
from duodaq.v2._member import Member
from duodaq.v2.families._surface import Measured

Described = Mapping[str, Mapping[str, Any]]
"""By field: what ``describe()`` returns."""


def member_of(name: str, key: Mapping[str, Any], *, settable: bool) -> Member:
    """The signal that is described by `key`, under `name`."""
    return Member(
        name,
        readable=True,
        settable=settable,
        unit=unit_of(key),
        doc=str(key.get("source", "")),
        limits=limits_of(key),
        choices=tuple(key.get("choices") or key.get("enum_strs") or ()),
    )


def unit_of(key: Mapping[str, Any]) -> str:
    """The unit of one field; empty if none is described."""
    return str(key.get("units") or key.get("egu") or "")


def limits_of(key: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """The lowest and the highest value that it may be set to; EPICS writes two equal ones for none."""
    limits = cast("Mapping[str, Mapping[str, Any]]", key.get("limits") or {})
    control = limits.get("control") or {}
    low = control.get("low", key.get("lower_ctrl_limit"))
    high = control.get("high", key.get("upper_ctrl_limit"))
    found = tuple(None if end is None or not math.isfinite(end) else float(end) for end in (low, high))
    return None if found[0] == found[1] else (found[0], found[1])


def field_of(name: str, fields: Iterable[str], hinted: Iterable[str]) -> str:
    """Which of its fields stands for the device `name`: its only one, or the only one that it hints at.

    Raises:
        RefusedError: There is none, or it cannot be told.
    """
    every = list(fields)
    chosen = [field for field in hinted if field in every]
    for known in (every, chosen):
        if len(known) == 1:
            return known[0]
    said = f"reads {', '.join(every)}; name one of them" if every else "reads nothing"
    raise RefusedError(f"{name} {said}", command=name)


def measured(
    name: str, readings: Mapping[str, Mapping[str, Any]], described: Described, hinted: Iterable[str]
) -> Measured:
    """The one value that `readings` have for the device `name`, in the unit that it is described with."""
    field = field_of(name, readings, hinted)
    return Measured(readings[field]["value"], unit_of(described.get(field, {})))


def values_of(readings: Mapping[str, Mapping[str, Any]]) -> Any:
    """The value of a signal; of a device that has several the values by field."""
    values = {field: reading["value"] for field, reading in readings.items()}
    return next(iter(values.values())) if len(values) == 1 else values
