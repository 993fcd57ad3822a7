from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from duodaq.dataplane import Hub
from duodaq.errors import LifecycleError
from duodaq.model import Measurement, Parameters, Runtime
from duodaq.ports import PortSource
from duodaq.v2 import RecorderPromise, Sequences, V2Command, V2Runtime
from duodaq.v4 import DataPublisher, Keep, V4Runtime


@dataclass(frozen=True, slots=True)
class RuntimeParts:
    """What a runtime is given: the ports, the parameter table, and the hub of either side.

    The sequence numbers outlive a runtime, so that a restarted one counts on; `v4_keep` is told
    which settings its next process has to know. `recorder` is what V2's commands start and stop.
    """

    broker: PortSource
    parameters: Parameters
    v2_data: Hub[Measurement]
    v4_data: DataPublisher
    v2_numbers: Sequences = field(default_factory=Sequences)
    v4_numbers: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    v4_keep: Keep | None = None
    recorder: RecorderPromise | None = None


RuntimeFactory = Callable[[RuntimeParts], Runtime]


def _make_v2(parts: RuntimeParts) -> Runtime:
    recorder, numbers = parts.recorder, parts.v2_numbers
    return V2Runtime(parts.broker, parts.parameters, parts.v2_data, recorder=recorder, sequences=numbers)


def _make_v4(parts: RuntimeParts) -> Runtime:
    return V4Runtime(parts.broker, parts.parameters, parts.v4_data, numbers=parts.v4_numbers, keep=parts.v4_keep)


@dataclass(frozen=True, slots=True)
class Factories:
    """How the two runtimes are made; called on the loop of the worker that will host them, in its process."""

    v2: RuntimeFactory = _make_v2
    v4: RuntimeFactory = _make_v4


def as_kept(keep: bool) -> dict[str, bool]:
    """What says to a runtime's `add` that an instrument stays which does not start; nothing, where it need not."""
    return {"keep": True} if keep else {}


async def submitted(runtime: Runtime, command: V2Command) -> Any:
    """What became of one of V2's own commands.

    Raises:
        LifecycleError: This runtime has no manager that takes them. Nothing was begun.
    """
    if not isinstance(runtime, V2Runtime):
        raise LifecycleError(f"runtime {runtime.name} does not take V2's commands", command=type(command).__name__)
    return await runtime.submit(command)
