"""Structured logs, metrics, spans, and the trace id that follows one action from the click to the wire."""

from duodaq.telemetry._histogram import Histogram
from duodaq.telemetry._log_file import LogFile, is_read_by_a_person
from duodaq.telemetry._log_line import as_json
from duodaq.telemetry._logs import configure_logging, get_logger, lost_on_console, unharmed
from duodaq.telemetry._metrics import (
    CONTENT_TYPE,
    METRICS,
    OPENMETRICS_TYPE,
    Metric,
    Sample,
    exposition_of,
    families_of,
    wants_openmetrics,
)
from duodaq.telemetry._otel import OpenSpan, OtelSpans, otlp_exporter
from duodaq.telemetry._outlet import Outlet
from duodaq.telemetry._spans import SPANS, Spans, span
from duodaq.telemetry._tap import event_counts, listen_to_log, note_event
from duodaq.telemetry._trace import current_trace_id, new_trace_id, tracing, work_for
from duodaq.telemetry._traceback import broke_off, named, told, words

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "OPENMETRICS_TYPE",
    "SPANS",
    "Histogram",
    "LogFile",
    "Metric",
    "OpenSpan",
    "OtelSpans",
    "Outlet",
    "Sample",
    "Spans",
    "as_json",
    "broke_off",
    "configure_logging",
    "current_trace_id",
    "event_counts",
    "exposition_of",
    "families_of",
    "get_logger",
    "is_read_by_a_person",
    "listen_to_log",
    "lost_on_console",
    "named",
    "new_trace_id",
    "note_event",
    "otlp_exporter",
    "span",
    "told",
    "tracing",
    "unharmed",
    "wants_openmetrics",
    "words",
    "work_for",
]
