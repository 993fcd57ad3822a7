"""A lab's figures as samples, read where they are kept at the moment of a scrape: no hot path knows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from duodaq.app._lab import Lab
from duodaq.app._last_run import ENDS, UNKNOWN
from duodaq.app._observers import Observers
from duodaq.dual import DualRuntimeManager
from duodaq.model import AlarmState, InstrumentState, ManagerState, RuntimeStatus
from duodaq.ports import PortState
from duodaq.telemetry import Sample, event_counts, exposition_of, lost_on_console

_OUTCOMES = ("handled", "failed", "refused", "expired", "ended", "late")
_FATES = ("done", "failed", "not_done", "unknown")


def exposition(lab: Lab, *, openmetrics: bool = False) -> bytes:
    """The lab's metrics in Prometheus' text format (or OpenMetrics'), of this moment. On the lab's own loop.

    Raises:
        ModuleNotFoundError: prometheus-client is not installed: ``pip install 'duodaq[web]'``.
    """
    return exposition_of(samples_of(lab), openmetrics=openmetrics)


def samples_of(lab: Lab) -> Iterator[Sample]:
    """Every sample of this moment. On the lab's own loop."""
    yield from _lab(lab)
    yield from _observed(lab.observers)
    for event, count in event_counts().items():
        yield Sample("duodaq_log_events", event, count)
    yield Sample("duodaq_log_lines_lost", ("file",), lab.observers.lines_lost)
    yield Sample("duodaq_log_lines_lost", ("console",), lost_on_console())
    for outcome, count in lab.observers.spans.items():
        yield Sample("duodaq_spans", (outcome,), count)
    yield from figures_of(lab.manager)
    yield from _recording(lab)
    yield from _alarms(lab)


def figures_of(manager: DualRuntimeManager) -> Iterator[Sample]:
    """What its manager knows of a lab at this moment: instruments, workers, ports and data."""
    yield from _instruments(manager)
    yield from _workers(manager)
    yield from _ports(manager)
    yield from _data(manager.ledgers().values())
    yield from _data(book.to_dict() for book in manager.bridge.ledgers().values())


def _lab(lab: Lab) -> Iterator[Sample]:
    health = lab.manager.health()
    yield Sample("duodaq_lab_info", (lab.definition.name, _version()), 1)
    yield from _one_of("duodaq_manager_state", ManagerState, health.state)
    for runtime, status in (("v2", health.v2), ("v4", health.v4)):
        yield from _one_of("duodaq_runtime_status", RuntimeStatus, status, runtime)
    yield Sample("duodaq_uptime_seconds", (), health.uptime_s)
    yield Sample("duodaq_stop_latched", (), health.latched)
    last = lab.observers.last_run
    for ended in ENDS:
        yield Sample("duodaq_last_run", (ended,), ended == (UNKNOWN if last is None else last.ended))
    yield Sample("duodaq_watchdog_up", (), lab.manager.guard.pid is not None)
    yield Sample("duodaq_watchdog_restarts", (), lab.manager.guard.restarted)
    yield Sample("duodaq_commands_in_hand", (), health.commands_in_hand)
    for one in health.workers:
        yield Sample("duodaq_worker_up", (one.name, one.mode), one.mode != "process" or one.pid is not None)


def _instruments(manager: DualRuntimeManager) -> Iterator[Sample]:
    for one in manager.instruments():
        for state in InstrumentState:
            yield Sample("duodaq_instrument_state", (one.id, one.runtime, state.value), state is one.state)
        given_up = one.state is InstrumentState.ERROR and not one.recoverable
        yield Sample("duodaq_instrument_given_up", (one.id,), given_up)
        yield Sample("duodaq_instrument_restarts", (one.id,), one.restarts)


def _observed(observers: Observers) -> Iterator[Sample]:
    yield Sample("duodaq_loop_lag_seconds", (), observers.lag)
    yield Sample("duodaq_stops_all", (), observers.stops_all)
    yield Sample("duodaq_flights", (), observers.flight.written)
    for key, count in observers.changes.items():
        yield Sample("duodaq_instrument_changes", key, count)


def _workers(manager: DualRuntimeManager) -> Iterator[Sample]:
    yield Sample("duodaq_spares_died", (), manager.housing.nursery.spares_died)
    yield Sample("duodaq_fork_servers_died", (), manager.housing.nursery.servers_died)
    for workers in manager.metrics().values():
        for worker, figures in workers.items():
            yield Sample("duodaq_worker_blocked_seconds", (worker,), figures["blocked_s"])
            if "restarts" in figures:
                yield Sample("duodaq_worker_restarts", (worker,), figures["restarts"])
                yield Sample("duodaq_worker_lingered", (worker,), figures["lingered"])
            if "dead_letters" in figures:
                yield Sample("duodaq_dead_letters", (worker,), figures["dead_letters"])
            for instrument, facts in figures.get("instruments", {}).items():
                yield from _classic(instrument, facts) if "queue" in facts else _actor(instrument, facts)


def _classic(instrument: str, facts: dict[str, Any]) -> Iterator[Sample]:
    queue = facts["queue"]
    yield from _mailbox(instrument, queue["waiting"], queue["capacity"], queue["high_water"])
    for fate in _FATES:
        yield Sample("duodaq_commands", (instrument, fate), facts[fate])
    yield Sample("duodaq_calls_overdue", (instrument,), facts["overdue"])
    yield Sample("duodaq_hangs", (instrument,), facts["hangs"])
    for channel, polls in facts["polls"].items():
        for outcome, count in polls.items():
            yield Sample("duodaq_polls", (instrument, channel, outcome), count)


def _actor(instrument: str, facts: dict[str, Any]) -> Iterator[Sample]:
    for channel, count in facts.get("poll_failures", {}).items():
        yield Sample("duodaq_polls", (instrument, channel, "failed"), count)
    mailbox = facts.get("mailbox")
    if mailbox is None:
        return
    waiting = mailbox["depth"] + mailbox["waiting"] + mailbox["urgent_depth"]
    yield from _mailbox(instrument, waiting, mailbox["capacity"], mailbox["high_water"])
    for outcome in _OUTCOMES:
        yield Sample("duodaq_messages", (instrument, outcome), mailbox[outcome])


def _mailbox(instrument: str, waiting: int, capacity: int, high_water: int) -> Iterator[Sample]:
    yield Sample("duodaq_mailbox_messages", (instrument,), waiting)
    yield Sample("duodaq_mailbox_capacity", (instrument,), capacity)
    yield Sample("duodaq_mailbox_high_water", (instrument,), high_water)


def _ports(manager: DualRuntimeManager) -> Iterator[Sample]:
    for port in manager.broker.status():
        name = (port.name,)
        for state in PortState:
            yield Sample("duodaq_port_state", (port.name, state.value), state is port.state)
        yield Sample("duodaq_port_exchanges", name, port.exchanges)
        yield Sample("duodaq_port_errors", name, port.errors)
        yield Sample("duodaq_port_reconnects", name, port.reconnects)
        yield Sample("duodaq_port_resyncs", name, port.resyncs)
        yield Sample("duodaq_port_late_replies", name, port.late)
        yield Sample("duodaq_port_stray_bytes", name, port.stray_bytes)
        yield Sample("duodaq_port_copies", name, port.copies)
        yield Sample("duodaq_port_strangers", name, port.strangers)
        yield Sample("duodaq_port_waiting", name, port.queue)
        yield Sample("duodaq_port_held_seconds", name, port.held_s)
        yield Sample("duodaq_port_lease_wait_seconds", (port.name, "50"), port.wait_median_s)
        yield Sample("duodaq_port_lease_wait_seconds", (port.name, "99"), port.wait_p99_s)


def _data(ledgers: Iterable[dict[str, Any]]) -> Iterator[Sample]:
    for book in ledgers:
        for hub, streams in book["produced"].items():
            for stream, count in streams.items():
                yield Sample("duodaq_stream_items", (hub, stream), count)
        for row in book["rows"]:
            key = (row["hub"], row["stream"], row["subscriber"])
            yield Sample("duodaq_delivered", key, row["delivered"])
            yield Sample("duodaq_in_flight", key, row["in_flight"])
            for reason, count in row["dropped"].items():
                yield Sample("duodaq_dropped", (*key, reason), count)


def _recording(lab: Lab) -> Iterator[Sample]:
    recorder = lab.recorder
    yield Sample("duodaq_recording_active", (), recorder is not None and recorder.recording)
    yield Sample("duodaq_recordings_not_begun", (), lab.not_begun)
    yield Sample("duodaq_recordings_repaired", (), lab.chores.repaired)
    if recorder is not None:
        yield Sample("duodaq_recording_refusing", (), recorder.refusing)
        yield Sample("duodaq_commit_seconds", (), recorder.commits)


def _alarms(lab: Lab) -> Iterator[Sample]:
    for one in lab.alarms.status():
        for state in AlarmState:
            yield Sample("duodaq_alarm_state", (one.name, state.value), state is one.state)
        yield Sample("duodaq_alarm_raised", (one.name,), one.raised)
    for outcome in ("sent", "failed"):
        for way, count in getattr(lab.alarms.messenger, outcome).items():
            yield Sample("duodaq_alarm_notices", (way, outcome), count)


def _one_of(name: str, states: Any, present: Any, *labels: str) -> Iterator[Sample]:
    for state in states:
        yield Sample(name, (*labels, state.value), state is present)


def _version() -> str:
    try:
        return version("duodaq")
    except PackageNotFoundError:
        return "unknown"
