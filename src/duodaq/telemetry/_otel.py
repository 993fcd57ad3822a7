"""Spans by OpenTelemetry, under the trace ids that we have anyway. Loads its library when it is made, not before.

What is open is kept by trace id, for what is measured where no context comes along: exchanges at the ports, which are
read from the wire log, and calls in worker processes, which come back with their answer. The id of a call in a process
is given away before it has begun, so that exchanges can have it as their parent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from duodaq.clock import utc_ns
from duodaq.telemetry._span_queue import MOST, SpanQueue
from duodaq.telemetry._trace import tracing

EXPORT_S = 5.0
_CURRENT: ContextVar[OpenSpan | None] = ContextVar("duodaq_span", default=None)


class OpenSpan:
    """A span that has begun; `on_end` is called before it ends, with the moment."""

    def __init__(self, trace_id: str, span: Any, instrument: str, parent: OpenSpan | None) -> None:
        self.trace_id = trace_id
        self.span = span
        self.instrument = instrument
        self.parent = parent
        self.inner_id: int | None = None
        self.inner_begun_ns = 0
        self.on_end: list[Callable[[int], None]] = []


class OtelSpans:
    """Takes spans, and gives them to an exporter of OpenTelemetry's in a thread of its own.

    Args:
        exporter: A SpanExporter.
        lab: The lab's name, in the resource of each span.
        at_once: Give each span to the exporter as it ends, for tests.
    """

    def __init__(self, exporter: Any, lab: str, *, at_once: bool = False) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._api: Any = trace
        self._no_context: Any = Context()
        self._random: Any = RandomIdGenerator()
        self._lock = threading.RLock()
        self._next_trace: int | None = None
        self._next_span: int | None = None
        self._open: dict[str, list[OpenSpan]] = {}
        self._ending: threading.Thread | None = None
        resource = Resource({"service.name": "duodaq", "duodaq.lab": lab})
        ids: Any = self
        self._provider: Any = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
        self.queue = SpanQueue(exporter)
        queue: Any = self.queue
        batch: Any = BatchSpanProcessor
        queue.next = SimpleSpanProcessor(queue) if at_once else batch(queue, MOST, None, MOST // 4)
        self._provider.add_span_processor(queue)
        self._tracer: Any = self._provider.get_tracer("duodaq")

    # --- as OpenTelemetry asks for ids

    def generate_trace_id(self) -> int:
        """The trace id that we have; else any."""
        chosen, self._next_trace = self._next_trace, None
        return self._random.generate_trace_id() if chosen is None else chosen

    def generate_span_id(self) -> int:
        """The span id that was given away before; else any."""
        chosen, self._next_span = self._next_span, None
        return self._random.generate_span_id() if chosen is None else chosen

    def is_trace_id_random(self) -> bool:
        """They are."""
        return True

    # --- spans

    @contextmanager
    def span(self, name: str, facts: dict[str, Any]) -> Generator[OpenSpan]:
        """See Spans."""
        with tracing() as trace_id:
            around = _CURRENT.get()
            parent = around if around is not None and around.trace_id == trace_id else None
            span = self.begin(name, trace_id, None if parent is None else self.context_of(parent), facts)
            one = OpenSpan(trace_id, span, str(facts.get("instrument", "")), parent)
            with self._lock:
                self._open.setdefault(trace_id, []).append(one)
            token = _CURRENT.set(one)
            error: BaseException | None = None
            try:
                yield one
            except BaseException as caught:
                error = caught
                raise
            finally:
                _CURRENT.reset(token)
                self._end(one, error)

    def _end(self, one: OpenSpan, error: BaseException | None) -> None:
        now_ns = utc_ns()
        for finish in one.on_end:
            finish(now_ns)
        with self._lock:
            left = self._open.get(one.trace_id, [])
            if one in left:
                left.remove(one)
            if not left:
                self._open.pop(one.trace_id, None)
        if one.inner_id is not None:  # its process never said how long it took
            self._end_inner(one, one.inner_begun_ns, now_ns, {"error": "no answer"})
        self.finish(one.span, now_ns, error)

    def expect_inner(self, trace_id: str | None, instrument: str) -> None:
        """See Spans."""
        one = self.around(trace_id, instrument)
        if one is not None:
            one.inner_id, one.inner_begun_ns = self._random.generate_span_id(), utc_ns()

    def inner(self, trace_id: str | None, instrument: str, begun_ns: int, ended_ns: int, facts: dict[str, Any]) -> None:
        """See Spans."""
        one = self.around(trace_id, instrument)
        if one is not None and one.inner_id is not None:
            self._end_inner(one, begun_ns, ended_ns, {"instrument": instrument, **facts})

    def _end_inner(self, one: OpenSpan, begun_ns: int, ended_ns: int, facts: dict[str, Any]) -> None:
        span = self.begin("worker", one.trace_id, one.span.get_span_context(), facts, begun_ns, one.inner_id)
        one.inner_id = None
        self.finish(span, ended_ns, None)

    # --- for what is measured elsewhere

    def around(self, trace_id: str | None, name: str) -> OpenSpan | None:
        """The innermost open span of that trace about the instrument that `name` speaks of; else the innermost."""
        if trace_id is None:
            return None
        with self._lock:
            left = tuple(self._open.get(trace_id, ()))
        own = [one for one in left if one.instrument and one.instrument in name]
        return (own or [*left] or [None])[-1]

    def context_of(self, one: OpenSpan) -> Any:
        """What a child has as its parent: the call in the process if there is one, else the span itself."""
        context = one.span.get_span_context()
        if one.inner_id is None:
            return context
        return self._api.SpanContext(context.trace_id, one.inner_id, False, context.trace_flags)

    def begin(
        self,
        name: str,
        trace_id: str,
        parent: Any,
        facts: dict[str, Any],
        begun_ns: int | None = None,
        span_id: int | None = None,
    ) -> Any:
        """A span that begins now, or at `begun_ns`, below the context `parent`."""
        known = {f"duodaq.{key}": value for key, value in facts.items() if value is not None}
        with self._lock:
            self._next_trace = int(trace_id, 16) if parent is None else None
            self._next_span = span_id
            context = self._no_context
            if parent is not None:
                context = self._api.set_span_in_context(self._api.NonRecordingSpan(parent), self._no_context)
            begun = utc_ns() if begun_ns is None else begun_ns
            return self._tracer.start_span(name, context=context, start_time=begun, attributes=known)

    def finish(self, span: Any, ended_ns: int, error: BaseException | None) -> None:
        """End a span; with an error it has failed."""
        if error is not None:
            span.record_exception(error, timestamp=ended_ns)
            status = self._api.Status(self._api.StatusCode.ERROR, f"{type(error).__name__}: {error}")
            span.set_status(status)
        span.end(end_time=ended_ns)

    def end(self) -> None:
        """Export what is left, and end, in a thread of its own; `ended` says when. Idempotent; never waits."""
        if self._ending is None:
            self._ending = threading.Thread(target=self._provider.shutdown, name="trace export", daemon=True)
            self._ending.start()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ending is not None and not self._ending.is_alive()


def otlp_exporter(endpoint: str) -> Any:
    """What sends spans by OTLP over HTTP to a collector at `endpoint`.

    Raises:
        ModuleNotFoundError: It is not installed: ``pip install 'duodaq[otel]'``.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
