"""Every metric there is, and how they are written for Prometheus. Nothing here measures: see `duodaq.app`.

The table is the one home of names, kinds, labels and words: the exposition, the reference and the tests read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from duodaq.telemetry._histogram import Histogram

Kind = Literal["counter", "gauge", "histogram"]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics rather than for Prometheus' older text."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for one in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _weight(parameters))
    return wanted["application/openmetrics-text"] > 0 and wanted["application/openmetrics-text"] >= wanted["text/plain"]


def _weight(parameters: Iterable[str]) -> float:
    given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 0.0


class Metric(NamedTuple):
    """One metric: what it is called (of a counter, without ``_total``), what it says, and by which labels."""

    name: str
    kind: Kind
    words: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> str:
        """The name by which a query asks for it."""
        return {"counter": f"{self.name}_total", "histogram": f"{self.name}_bucket"}.get(self.kind, self.name)


class Sample(NamedTuple):
    """One value of a metric; of a histogram, all of it."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


_C, _G, _H = "counter", "gauge", "histogram"
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # the lab
        Metric("duodaq_lab_info", _G, "1, with the lab's name and duodaq's version.", ("lab", "version")),
        Metric("duodaq_manager_state", _G, "1 for the manager's present state.", ("state",)),
        Metric("duodaq_runtime_status", _G, "1 for the present status of a runtime.", ("runtime", "status")),
        Metric("duodaq_uptime_seconds", _G, "Since the lab was started."),
        Metric("duodaq_last_run", _G, "1 for how the last run of this lab ended: clean, forced or leaked as the worst "
               "of its components, died without a word, or unknown.", ("ended",)),
        Metric("duodaq_stop_latched", _G, "1 while a stop-all is in force."),
        Metric("duodaq_stops_all", _C, "How often a stop-all came into force."),
        Metric("duodaq_watchdog_up", _G, "1 while a watchdog guards the lab."),
        Metric("duodaq_watchdog_restarts", _C, "How often the watchdog died and was started again."),
        Metric("duodaq_commands_in_hand", _G, "Commands that the manager has given out and has no answer to yet."),
        Metric("duodaq_loop_lag_seconds", _H, "How late the manager's event loop comes to what is due."),
        Metric("duodaq_log_events", _C, "Warnings and errors logged by this program, workers included.",
               ("level", "event")),
        Metric("duodaq_log_lines_lost", _C, "Lines of the log that their place did not take: the file, whose disk "
               "refused, the console, which nobody read.", ("place",)),
        Metric("duodaq_spans", _C, "Spans of traces that were sent to the collector, failed, or were dropped because "
               "2,048 waited.", ("outcome",)),
        # workers and instruments
        Metric("duodaq_worker_up", _G, "1 while a worker runs, 0 while there is none.", ("worker", "mode")),
        Metric("duodaq_worker_restarts", _C, "How often a worker process was replaced.", ("worker",)),
        Metric("duodaq_worker_lingered", _C, "How often a worker process that was killed did not end at once: no other "
               "takes over meanwhile.", ("worker",)),
        Metric("duodaq_spares_died", _C, "Worker processes that died before anybody needed them."),
        Metric("duodaq_fork_servers_died", _C, "How often what makes the worker processes of this program died."),
        Metric("duodaq_worker_blocked_seconds", _G, "How long a worker's loop has owed a sign of progress.",
               ("worker",)),
        Metric("duodaq_instrument_state", _G, "1 for the present state of an instrument.",
               ("instrument", "runtime", "state")),
        Metric("duodaq_instrument_given_up", _G, "1 for an instrument in error that comes back by no restart: a person "
               "has to recover it.", ("instrument",)),
        Metric("duodaq_instrument_changes", _C, "How often an instrument came into a state.",
               ("instrument", "state")),
        Metric("duodaq_instrument_restarts", _C, "How often an instrument was started again.", ("instrument",)),
        # mailboxes and commands
        Metric("duodaq_mailbox_messages", _G, "What waits for an instrument.", ("instrument",)),
        Metric("duodaq_mailbox_capacity", _G, "How many messages may wait for an instrument.", ("instrument",)),
        Metric("duodaq_mailbox_high_water", _G, "The most that ever waited at once.", ("instrument",)),
        Metric("duodaq_commands", _C, "Commands of V2 instruments that have ended, by fate.",
               ("instrument", "fate")),
        Metric("duodaq_messages", _C, "Messages of V4 actors: handled, failed, refused (no room), expired, ended "
               "(not done) or late.", ("instrument", "outcome")),
        Metric("duodaq_dead_letters", _C, "Messages of V4 that nobody could be told the outcome of.", ("worker",)),
        Metric("duodaq_calls_overdue", _C, "Driver calls of V2 that were not back at their deadline.",
               ("instrument",)),
        Metric("duodaq_hangs", _C, "Driver calls that made a V2 instrument Hung, as its present worker counts them.",
               ("instrument",)),
        Metric("duodaq_polls", _C, "Readings that were due: done, failed or skipped; of V4 the failed ones.",
               ("instrument", "channel", "outcome")),
        # ports
        Metric("duodaq_port_state", _G, "1 for the present state of a port.", ("port", "state")),
        Metric("duodaq_port_exchanges", _C, "Exchanges begun on a port.", ("port",)),
        Metric("duodaq_port_errors", _C, "Exchanges that did not end with their reply.", ("port",)),
        Metric("duodaq_port_reconnects", _C, "How often a lost line came back.", ("port",)),
        Metric("duodaq_port_resyncs", _C, "How often a port was brought to match questions and answers again.",
               ("port",)),
        Metric("duodaq_port_late_replies", _C, "Replies that came when nobody waited any more.", ("port",)),
        Metric("duodaq_port_stray_bytes", _C, "Bytes that belonged to nobody.", ("port",)),
        Metric("duodaq_port_copies", _C, "Destructive queries answered with what another holder had read.", ("port",)),
        Metric("duodaq_port_strangers", _C, "How often another device answered at a port than before.", ("port",)),
        Metric("duodaq_port_waiting", _G, "Who waits for a lease now.", ("port",)),
        Metric("duodaq_port_held_seconds", _G, "How long the present lease has been held.", ("port",)),
        Metric("duodaq_port_lease_wait_seconds", _G, "Waits for a lease, of the last 1024: their median and 99th "
               "percentile.", ("port", "percentile")),
        # data
        Metric("duodaq_stream_items", _C, "Measurements (rows, of batches) published.", ("hub", "stream")),
        Metric("duodaq_delivered", _C, "What a subscriber took.", ("hub", "stream", "subscriber")),
        Metric("duodaq_dropped", _C, "What a subscriber lost, by reason.",
               ("hub", "stream", "subscriber", "reason")),
        Metric("duodaq_in_flight", _G, "What waits for a subscriber.", ("hub", "stream", "subscriber")),
        Metric("duodaq_recording_active", _G, "1 while a recording is under way."),
        Metric("duodaq_recordings_not_begun", _C, "Recordings and logs that could not begin: a full disk, a place that "
               "is read-only."),
        Metric("duodaq_recordings_repaired", _C, "Recordings that a crash left unfinished and that were repaired."),
        Metric("duodaq_recording_refusing", _G, "1 while the disk refuses the recording."),
        Metric("duodaq_commit_seconds", _H, "How long the recording took to make what it had durable."),
        # alarms
        Metric("duodaq_alarm_state", _G, "1 for the present state of an alarm.", ("alarm", "state")),
        Metric("duodaq_alarm_raised", _C, "How often an alarm was raised.", ("alarm",)),
        Metric("duodaq_alarm_notices", _C, "Webhooks and mails of alarms, sent or failed.", ("way", "outcome")),
        Metric("duodaq_flights", _C, "How often the flight recorder wrote what had been."),
    )
}  # fmt: skip


def exposition_of(samples: Iterable[Sample], *, openmetrics: bool = False) -> bytes:
    """The samples in Prometheus' text format, or in OpenMetrics'.

    Raises:
        ModuleNotFoundError: prometheus-client is not installed: ``pip install 'duodaq[web]'``.
    """
    import prometheus_client
    from prometheus_client.openmetrics import exposition

    strict: Any = exposition  # its types are not known
    written = strict.generate_latest if openmetrics else prometheus_client.generate_latest
    ready: Any = _Ready(list(families_of(samples)))
    return written(ready)


def families_of(samples: Iterable[Sample]) -> Iterator[Any]:
    """The samples as prometheus-client's families, in the order of the table.

    Raises:
        ModuleNotFoundError: prometheus-client is not installed.
        KeyError: A sample of a metric that is not in the table.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    makers = {_C: CounterMetricFamily, _G: GaugeMetricFamily, _H: HistogramMetricFamily}
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(METRICS[sample.name].name, []).append(sample)
    for name, metric in METRICS.items():
        if name not in found:
            continue
        family: Any = makers[metric.kind](name, metric.words, labels=metric.labels)
        for sample in found[name]:
            labels = tuple(_encodable(label) for label in sample.labels)
            if isinstance(sample.value, Histogram):
                family.add_metric(labels, sample.value.buckets(), sample.value.total)
            else:
                family.add_metric(labels, sample.value)
        yield family


def _encodable(label: str) -> str:
    """A name that is no whole text, as one of a file may be, must not cost all metrics."""
    return label.encode("utf-8", "backslashreplace").decode()


class _Ready:
    """A registry of what is there already."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families
