from __future__ import annotations

from dataclasses import dataclass

from duodaq.model import ParameterEntry, PortDefinition, RuntimeName
from duodaq.workers._parts import RuntimeFactory


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker process is to be. Which instruments are in it comes with the word to start them.

    `entries` is the present parameter table; `memory_bytes` how much private memory it may take on top of what it has
    when it begins; `anchor_ns` the manager's clock.
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
