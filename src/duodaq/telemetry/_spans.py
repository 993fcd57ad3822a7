"""Where spans go, if anywhere: one switch for the program. Off, a span costs the look at one variable.

A span's parent is the one that is open around it in the same task or thread; what is measured elsewhere (in a worker
process, at a port) finds its parent by the trace id, which crosses everything anyway.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Spans(Protocol):
    """What takes spans."""

    def span(self, name: str, facts: dict[str, Any]) -> AbstractContextManager[Any]:
        """A span around a block; it works for the trace in force, or for a new one."""
        ...

    def expect_inner(self, trace_id: str | None, instrument: str) -> None:
        """The call for `instrument` in that trace goes into another process, which will say how long it took."""
        ...

    def inner(self, trace_id: str | None, instrument: str, begun_ns: int, ended_ns: int, facts: dict[str, Any]) -> None:
        """It took from `begun_ns` to `ended_ns` there."""
        ...


class SpanSwitch:
    """Who takes spans in this program; nobody while `taker` is None, which is all that the busiest paths look at."""

    __slots__ = ("taker",)

    def __init__(self) -> None:
        self.taker: Spans | None = None


SPANS = SpanSwitch()
_NOTHING = nullcontext()


def span(name: str, **facts: Any) -> AbstractContextManager[Any]:
    """A span around a block, if anybody takes spans; not for what is done thousands of times a second."""
    return _NOTHING if SPANS.taker is None else SPANS.taker.span(name, facts)
