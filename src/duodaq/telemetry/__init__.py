"""Structured logs and the trace id that follows one action from the click to the wire."""

from duodaq.telemetry._logs import configure_logging, get_logger
from duodaq.telemetry._trace import current_trace_id, new_trace_id, tracing, work_for
from duodaq.telemetry._traceback import broke_off, named, told, words

__all__ = [
    "broke_off",
    "configure_logging",
    "current_trace_id",
    "get_logger",
    "named",
    "new_trace_id",
    "told",
    "tracing",
    "words",
    "work_for",
]
