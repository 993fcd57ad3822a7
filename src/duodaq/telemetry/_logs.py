from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from duodaq.telemetry._light import light_structlog
from duodaq.telemetry._log_line import as_json, for_a_person
from duodaq.telemetry._outlet import Outlet
from duodaq.telemetry._tap import note_event
from duodaq.telemetry._trace import current_trace_id
from duodaq.telemetry._traceback import named

if TYPE_CHECKING:
    import structlog
else:
    structlog = light_structlog()

ROOT = "duodaq"


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger: ``log.warning("queue is losing values", subscriber="plot", dropped=12)``.

    It writes to the standard logger ``duodaq.<name>``, so an application that never calls `configure_logging` still
    decides with `logging` alone what it sees, and nothing of ours ever lands on stdout.
    """
    full = name if name.startswith(ROOT) else f"{ROOT}.{name}"
    return structlog.wrap_logger(
        Unharmed(logging.getLogger(full)),
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
    handler.setFormatter(_formatter(json, handler.outlet))
    handler.setLevel(level.upper() if isinstance(level, str) else level)
    files = [one.level for one in root.handlers]
    root.addHandler(handler)
    root.setLevel(min([handler.level, *files]))
    root.propagate = False


class _Handler(logging.Handler):
    """The one handler that `configure_logging` owns; it keeps nobody waiting for whoever reads it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.outlet = Outlet(stream)

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging` asks for it."""
        try:
            self.outlet.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - `logging` says so on stderr, or not, as it is told
            self.handleError(record)

    def flush(self) -> None:
        """As `logging` asks for it, at the end of the program."""
        self.outlet.drain()


def lost_on_console() -> int:
    """How many lines were lost because nobody read them, since `configure_logging` was called."""
    return sum(one.outlet.lost for one in logging.getLogger(ROOT).handlers if isinstance(one, _Handler))


class Unharmed:
    """A standard logger whose handlers harm nobody who logs: one that raises is counted, and that is all."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._logger, name)
        return partial(unharmed, method) if name in _SAYING else method


def unharmed(say: Callable[..., Any], *args: Any, **facts: Any) -> None:
    """Hand something to the handlers of the log, whatever these do."""
    try:
        say(*args, **facts)
    except Exception as error:  # noqa: BLE001 - somebody else's handler must not reach a port or a loop
        note_event("error", {"event": "a handler of the log failed", "error": named(error)})


_SAYING = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})


def _formatter(json: bool, outlet: Outlet) -> logging.Formatter:
    renderers: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(as_json)]
        if json
        else [
            for_a_person,
            structlog.dev.ConsoleRenderer(
                colors=outlet.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # the other one shows what stands in variables
            ),
        ]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *renderers,
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
            structlog.processors.JSONRenderer(as_json),
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
