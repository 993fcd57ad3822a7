from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from duodaq.model import InstrumentDefinition, ParameterEntry, PortDefinition, RuntimeName
from duodaq.workers._by_value import is_plain
from duodaq.workers._parts import RuntimeFactory

Stanzas = tuple[InstrumentDefinition | str, ...]
_AHEAD = ""  # no driver's name


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker process is to be. Which instruments are in it comes with the word to start them.

    `entries` is the present parameter table; `memory_bytes` how much private memory it may take on top of what it has
    when it begins; `anchor_ns` the manager's clock; `ahead` what it may know of them before.
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
    ahead: dict[str, InstrumentDefinition] = field(default_factory=dict[str, InstrumentDefinition])


def stanzas_ahead(definitions: Iterable[InstrumentDefinition]) -> dict[str, InstrumentDefinition]:
    """Those that may travel before the word to start them: the rest comes with that, if it is still the same.

    Not one that holds more than plain values beside its driver: what cannot be compared, or what a notebook defined, of
    which a second journey would make a second class.
    """
    return {one.id: one for one in definitions if _is_plain(one)}


def _is_plain(definition: InstrumentDefinition) -> bool:
    calls = [*definition.safe.values(), *definition.polls]
    return is_plain([definition.args, definition.settings, definition.options, [call.args for call in calls]])


def to_start(definitions: Iterable[InstrumentDefinition], ahead: Mapping[str, InstrumentDefinition]) -> Stanzas:
    """The instruments to start: by their names where nothing has changed since, without a driver that went ahead."""
    return tuple(_difference(one, ahead.get(one.id)) for one in definitions)


def _difference(now: InstrumentDefinition, before: InstrumentDefinition | None) -> InstrumentDefinition | str:
    if before == now:
        return now.id
    return now if before is None or before.driver is not now.driver else replace(now, driver=_AHEAD)


def started(stanzas: Stanzas, ahead: Mapping[str, InstrumentDefinition]) -> tuple[InstrumentDefinition, ...]:
    """What `to_start` was given."""
    return tuple(_whole(one, ahead) for one in stanzas)


def _whole(stanza: InstrumentDefinition | str, ahead: Mapping[str, InstrumentDefinition]) -> InstrumentDefinition:
    if isinstance(stanza, str):
        return ahead[stanza]
    return replace(stanza, driver=ahead[stanza.id].driver) if stanza.driver == _AHEAD else stanza
