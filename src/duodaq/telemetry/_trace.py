from __future__ import annotations

import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_TRACE_ID: ContextVar[str | None] = ContextVar("duodaq_trace_id", default=None)
_chance = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.seed)  # else two children of one parent would draw the same ids


def new_trace_id() -> str:
    """32 hexadecimal digits, as OpenTelemetry and W3C trace context write a trace id."""
    return f"{_chance.getrandbits(128):032x}"


def current_trace_id() -> str | None:
    """The trace id of the action that the calling task or thread works for, or None."""
    return _TRACE_ID.get()


def work_for(trace_id: str | None) -> None:
    """For the rest of the calling task, work for one action.

    Args:
        trace_id: The id that came with the request; without one, a new one.
    """
    _TRACE_ID.set(trace_id or new_trace_id())


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
