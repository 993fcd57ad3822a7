"""Every fault that a test of this folder brings about: what the log says of it, and which figure it moves.

Each test names its faults in a mark, ``@pytest.mark.fault("SIGKILL")``. A fixture looks for a line and a figure of
each when the test has ended (see `FaultWatch`); where it cannot, the mark says ``by=``: who sees them instead, or why
there are none. `test_fault_table` finds the test without a mark, and the fault that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pytest

from duodaq.app import _samples
from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.telemetry import Sample, event_counts, listen_to_log
from duodaq.v2 import V2Runtime

LOGGED = "duodaq_log_events"
"""The figure of a fault whose line is counted, and nothing else."""
WORKER_LATE_S = 2.0
"""What a worker process counts is known here half a second later."""

ITSELF = "it looks for both itself"
PEACE = "nothing goes wrong in it"
CHANCE = "who dies is left to chance"
V2_ALONE = "without a manager: what it reports or raises, a manager logs and counts"
ONLY_LAB = "its change of state is logged and counted by a lab, of which this is the manager alone"
JOURNAL = "a journal alone: a lab that finds one says so at its next start"
PROGRAM = "in a program of its own"


class Told(NamedTuple):
    """One of these sentences, and one of these figures."""

    sentences: tuple[str, ...]
    figures: tuple[str, ...]


FAILED = Told(("command failed",), ("duodaq_commands", "duodaq_messages"))
DEATH = Told(("worker died",), ("duodaq_worker_restarts",))
ENDED = Told(("worker is ended",), ("duodaq_worker_restarts",))
NONSENSE = (
    "garbage", "wrong message", "message for the other side", "oversized message", "forged measurement",
    "forged place in the ring", "forged content in the ring",
)  # fmt: skip
FAULTS: Mapping[str, Told] = {
    # what a driver does to its process
    "exception": FAILED,
    "exception without words": FAILED,
    **dict.fromkeys(("os._exit", "SIGSEGV", "SIGKILL", "forks and exits", *NONSENSE), DEATH),
    **dict.fromkeys(("C call", "busy loop", "lock-holding call", "output flood"), ENDED),
    "memory bomb": Told((*FAILED.sentences, *DEATH.sentences), (*FAILED.figures, *DEATH.figures)),
    "hangs": Told(("instrument hung", "instrument hangs"), ("duodaq_hangs",)),
    "overdue": Told(("overdue",), ("duodaq_calls_overdue",)),
    # what becomes of a worker
    "crash limit": Told(("worker has failed",), ("duodaq_instrument_given_up",)),
    "worker does not end": Told(("worker does not end",), ("duodaq_worker_lingered",)),
    "spare dies": Told(("a spare worker died",), ("duodaq_spares_died",)),
    "fork server dies": Told(("the fork server is lost",), ("duodaq_fork_servers_died",)),
    # what happens to its line, its start, its data
    "unplugged": Told(("port lost",), ("duodaq_port_reconnects",)),
    "own device unplugged": Told(("instrument lost",), ("duodaq_polls", "duodaq_instrument_restarts")),
    "silent": Told(("command failed",), ("duodaq_port_errors",)),
    "garbled": Told(
        ("command failed", "reading failed", "polling failed"),
        ("duodaq_polls", "duodaq_port_errors", "duodaq_commands", "duodaq_messages"),
    ),
    "another device": Told(("another device answers",), ("duodaq_port_strangers",)),
    "does not start": Told(
        ("instrument is in error", "instrument did not start", "replacement did not start"),
        ("duodaq_instrument_changes", "duodaq_worker_restarts", "duodaq_instrument_restarts"),
    ),
    "full disk": Told(("recording is interrupted",), ("duodaq_alarm_raised",)),
    "no place": Told(("a recording could not begin",), ("duodaq_recordings_not_begun",)),
    "slow reader": Told(("slow reader is losing data",), ("duodaq_dropped",)),
    # what happens to the lab
    "watchdog": Told(("the watchdog died and is started again",), ("duodaq_watchdog_restarts",)),
    "alarm": Told(("alarm raised",), ("duodaq_alarm_raised",)),
    "stop-all": Told(("stop-all",), ("duodaq_stops_all", LOGGED)),
    "forced": Told(("not ended in order: forced",), ("duodaq_last_run", LOGGED)),
    "leaked": Told(("not ended in order: leaked",), ("duodaq_last_run", LOGGED)),
    "lab killed": Told(("the last run of this lab did not end in order",), ("duodaq_last_run",)),
    "recording left": Told(("repaired a recording that was left unfinished",), ("duodaq_recordings_repaired",)),
}
BAD = {"duodaq_commands": "failed", "duodaq_messages": "failed", "duodaq_polls": "failed"}
"""Of a figure with several outcomes the label that one of these must have."""


def faults_of(test: pytest.Item) -> tuple[tuple[str, ...], str]:
    """The faults of a test, of which its parameters may choose some, and who sees them if it is not the fixture."""
    marks = list(test.iter_markers("fault"))
    assert marks, f"{test.nodeid} has no @pytest.mark.fault: which faults are they, or why none? See fault_table"
    names = tuple(name for mark in marks for name in mark.args)
    by = " ".join(mark.kwargs.get("by", "") for mark in marks).strip()
    assert names or by, f"{test.nodeid}: neither a fault nor a reason"
    assert set(names) <= FAULTS.keys(), f"{test.nodeid}: not in fault_table: {set(names) - FAULTS.keys()}"
    chosen = {value for value in getattr(getattr(test, "callspec", None), "params", {}).values() if value in names}
    return (tuple(chosen) or names), by


class FaultWatch:
    """What is logged during a test, and what its managers and V2 runtimes have counted when they are ended."""

    def __init__(self, names: Iterable[str], patch: pytest.MonkeyPatch) -> None:
        self.names = tuple(names)
        self.said: set[str] = set()
        self.moved: set[str] = set()
        self._logged = event_counts()
        self._patch_end_of(DualRuntimeManager, "shutdown", lambda one: _samples.figures_of(one), patch)
        self._patch_end_of(V2Runtime, "stop", _of_runtime, patch)
        self.end: Callable[[], None] = listen_to_log(lambda _, event: self.said.add(str(event.get("event"))))

    def _patch_end_of(
        self, kind: Any, name: str, figures: Callable[[Any], Iterable[Sample]], patch: pytest.MonkeyPatch
    ) -> None:
        ends: Callable[..., Awaitable[Any]] = getattr(kind, name)

        async def look_and_end(one: Any, *args: Any, **facts: Any) -> Any:
            limit = Deadline(WORKER_LATE_S)
            self._look(figures(one))
            while self._unmoved() and not limit.passed:
                await pause(0.01)
                self._look(figures(one))
            return await ends(one, *args, **facts)

        patch.setattr(kind, name, look_and_end)

    def _look(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            if not isinstance(sample.value, int | float) or sample.value <= 0:
                continue
            if sample.name not in BAD or BAD[sample.name] in sample.labels:
                self.moved.add(sample.name)

    def _unmoved(self) -> list[str]:
        unmoved = [n for n in self.names if not self.moved & set(FAULTS[n].figures) and LOGGED not in FAULTS[n].figures]
        return [name for name in unmoved if self.said & set(FAULTS[name].sentences)]  # else it is not to come, either

    def complaints(self) -> list[str]:
        """What of each fault was not to be seen."""
        logged = {sentence for (_, sentence), n in event_counts().items() if n > self._logged.get((_, sentence), 0)}
        found: list[str] = []
        for name in self.names:
            told = FAULTS[name]
            if not self.said & set(told.sentences):
                found.append(f"{name}: nothing like {told.sentences} was logged, but {sorted(self.said)}")
            elif not self.moved & set(told.figures) and not (LOGGED in told.figures and logged & set(told.sentences)):
                found.append(f"{name}: none of {told.figures} moved, but {sorted(self.moved)}")
        return found


def _of_runtime(runtime: V2Runtime) -> Iterable[Sample]:
    for instrument, facts in runtime.metrics().get("instruments", {}).items():
        yield from _samples._classic(instrument, facts)
    for one in runtime.instruments():
        yield Sample("duodaq_instrument_restarts", (one.id,), one.restarts)
