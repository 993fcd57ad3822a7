from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from duodaq.config import worker_of
from duodaq.model import InstrumentDefinition, RuntimeDefinition, RuntimeName


@dataclass(frozen=True, slots=True)
class Group:
    """Instruments of one runtime that share one worker. `kind` is "inline", "thread" or "process"."""

    name: str
    runtime: RuntimeName
    kind: str


def place(instrument: InstrumentDefinition, runtime: RuntimeDefinition) -> Group:
    """The worker group of `instrument`: its runtime's, one of another kind, or (``own``) a process all to itself."""
    wanted = worker_of(instrument, runtime)
    if wanted == "own":
        return Group(f"{instrument.runtime}.{instrument.id}", instrument.runtime, "process")
    return Group(f"{instrument.runtime}-{wanted}", instrument.runtime, wanted)


def groups_of(instruments: Iterable[InstrumentDefinition], runtime: RuntimeDefinition) -> tuple[Group, ...]:
    """All groups that `instruments` need, in order of first use; the runtime's own group always among them."""
    home = Group(f"{runtime.name}-{runtime.worker}", runtime.name, runtime.worker)
    return tuple(dict.fromkeys([home, *(place(i, runtime) for i in instruments)]))
