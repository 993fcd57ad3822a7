from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from duodaq.telemetry._tap import note_event
from duodaq.telemetry._trace import current_trace_id

ROOT = "duodaq"


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger: ``log.warning("queue is losing values", subscriber="plot", dropped=12)``.

    It writes to the standard logger ``duodaq.<name>``, so an application that never calls `configure_logging` still
    decides with `logging` alone what it sees, and nothing of ours ever lands on stdout.
    """
    full = name if name.startswith(ROOT) else f"{ROOT}.{name}"
    return structlog.wrap_logger(
        logging.getLogger(full),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_shared_processors(),
            _tapped,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )


def configure_logging(level: str | int = "INFO", json: bool = False, stream: TextIO | None = None) -> None:
    """Send everything duodaq logs to `stream` (default stderr), as lines for a person or as JSON, one object a line.

    Calling it again replaces what the former call had set up.
    """
    root = logging.getLogger(ROOT)
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_formatter(json, handler.stream))
    handler.setLevel(level.upper() if isinstance(level, str) else level)
    files = [one.level for one in root.handlers]
    root.addHandler(handler)
    root.setLevel(min([handler.level, *files]))
    root.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler that `configure_logging` owns."""


def _formatter(json: bool, stream: TextIO) -> logging.Formatter:
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if json else []),
            renderer,
        ],
    )


def json_formatter(last: Any) -> logging.Formatter:
    """One JSON object a line, which the processor `last` has had in its hands."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            last,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ],
    )


def _shared_processors() -> list[Any]:
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
    ]


def _tapped(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    note_event(method, event)
    return event


def _add_trace_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    trace_id = current_trace_id()
    if trace_id is not None:
        event.setdefault("trace_id", trace_id)
    return event
