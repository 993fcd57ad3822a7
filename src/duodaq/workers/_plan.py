from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from duodaq.model import InstrumentDefinition, ParameterEntry, PortDefinition, RuntimeName
from duodaq.workers._by_value import is_plain
from duodaq.workers._parts import RuntimeFactory

Drivers = dict[str, Any]
"""By instrument."""

_AHEAD = ""  # no driver's name


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker process is to be. Which instruments are in it comes with the word to start them.

    `entries` is the present parameter table; `memory_bytes` how much private memory it may take on top of what it has
    when it begins; `anchor_ns` the manager's clock; `drivers` those of its instruments' drivers that may come before.
    """

    name: str
    runtime: RuntimeName
    factory: RuntimeFactory
    ports: dict[str, PortDefinition]
    epochs: dict[str, int]
    latched: bool
    anchor_ns: int
    log_level: int
    entries: tuple[ParameterEntry, ...] = ()
    memory_bytes: int | None = None
    lab: str = ""
    drivers: Drivers = field(default_factory=dict[str, Any])


def drivers_ahead(definitions: Iterable[InstrumentDefinition]) -> Drivers:
    """The drivers that are no names, and may travel before their stanzas.

    Not those whose stanza holds more than plain values: what a notebook defined must come as a whole, or a class that
    both name would be two.
    """
    return {one.id: one.driver for one in definitions if not isinstance(one.driver, str) and _is_plain(one)}


def _is_plain(definition: InstrumentDefinition) -> bool:
    calls = [*definition.safe.values(), *definition.polls]
    return is_plain([definition.args, definition.settings, definition.options, [call.args for call in calls]])


def without_drivers(definitions: Iterable[InstrumentDefinition], ahead: Drivers) -> tuple[InstrumentDefinition, ...]:
    """The stanzas as they travel after those drivers."""
    return tuple(replace(one, driver=_AHEAD) if ahead.get(one.id) is one.driver else one for one in definitions)


def with_drivers(definitions: Iterable[InstrumentDefinition], ahead: Drivers) -> tuple[InstrumentDefinition, ...]:
    """The stanzas as they were before `without_drivers`."""
    return tuple(replace(one, driver=ahead[one.id]) if one.driver == _AHEAD else one for one in definitions)
