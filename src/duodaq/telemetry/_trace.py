from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_TRACE_ID: ContextVar[str | None] = ContextVar("duodaq_trace_id", default=None)


def new_trace_id() -> str:
    """32 hexadecimal digits, as OpenTelemetry and W3C trace context write a trace id."""
    return secrets.token_hex(16)


def current_trace_id() -> str | None:
    """The trace id of the action that the calling task or thread works for, or None."""
    return _TRACE_ID.get()


@contextmanager
def tracing(trace_id: str | None = None) -> Generator[str]:
    """Work for one action: everything logged inside carries its trace id.

    Args:
        trace_id: The id that came with the request; without one, the id already in force, or a new one.
    """
    chosen = trace_id or _TRACE_ID.get() or new_trace_id()
    token = _TRACE_ID.set(chosen)
    try:
        yield chosen
    finally:
        _TRACE_ID.reset(token)
