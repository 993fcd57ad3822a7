"""One trace of one call holds every layer, from the request down to the bytes, wherever the instrument lives."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.dial_line import DialLine

from duodaq.app import Client, Lab, LabHost, _observers
from duodaq.app._service import LabService
from duodaq.clock import Deadline, pause
from duodaq.errors import DuodaqError, NotInControlError, UnsafeStateError
from duodaq.link import LAB_PROTOCOL, LinkClient, find_lab
from duodaq.model import (
    Execute,
    InstrumentDefinition,
    LabDefinition,
    ObserverDefinition,
    PortDefinition,
    RuntimeDefinition,
    WebDefinition,
)
from duodaq.ports import MemoryTransport, Receiver
from duodaq.telemetry import SPANS, new_trace_id, tracing

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

DRIVER = """\
class Dial:
    zero = property(lambda self: 0.0, lambda self, value: self.serial.write(b"Z\\n"))

    def __init__(self, serial):
        self.serial = serial

    def angle(self):
        self.serial.write(b"A?\\n")
        return float(self.serial.readline())

    def twice(self):
        return self.angle() + self.angle()

    def break_down(self):
        self.serial.write(b"B?\\n")
        raise ArithmeticError("broken")
"""


def lab_in(folder: Path, worker: str, otlp: str = "http://127.0.0.1:9", **more: Any) -> Lab:
    (folder / "dial.py").write_text(DRIVER)
    facts: dict[str, Any] = {"port": "line", "passive": True, "base_dir": folder, **more}
    dial = InstrumentDefinition("dial", "v2", "./dial.py:Dial", **facts)
    definition = LabDefinition(
        "traced",
        ports=(PortDefinition("line", serial={"path": "nowhere"}, idle_ms=1),),
        instruments=(dial,),
        v2=RuntimeDefinition("v2", worker),
        observers=ObserverDefinition(otlp=otlp),
    )
    return Lab(definition, transports={"line": DialLine()})


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    one = InMemorySpanExporter()
    monkeypatch.setattr(_observers, "otlp_exporter", lambda endpoint: one)
    return one


async def its_last_try(spans: Any) -> None:
    ends = Deadline(20.0)
    while not spans.ended:
        assert not ends.passed
        await pause(0.01)


def tree(exporter: InMemorySpanExporter, trace_id: str) -> list[tuple[str, list[Any]]]:
    """The spans of a trace as (name, children), in the order in which they began."""
    found = [one for one in exporter.get_finished_spans() if f"{one.context.trace_id:032x}" == trace_id]
    found.sort(key=lambda one: one.start_time)
    known = {one.context.span_id for one in found}
    assert all(one.parent is None or one.parent.span_id in known for one in found), "a span without its parent"
    for one in found:
        parent = next((p for p in found if one.parent is not None and p.context.span_id == one.parent.span_id), None)
        if parent is not None:
            assert parent.start_time <= one.start_time <= one.end_time, (one.name, parent.name)
            if one.name not in ("lease", "exchange"):  # what a driver's thread gives back may be noted after its answer
                assert one.end_time <= parent.end_time, (one.name, parent.name)

    def below(parent: int | None) -> list[Any]:
        here = [one for one in found if (one.parent.span_id if one.parent else None) == parent]
        return [(one.name, below(one.context.span_id)) for one in here]

    return below(None)


def chain(spans: list[tuple[str, list[Any]]]) -> Iterator[tuple[str, int]]:
    """The first of each layer, from the outermost in, and how many there are beside it."""
    while spans:
        yield spans[0][0], len(spans)
        spans = spans[0][1]


def of_name(exporter: InMemorySpanExporter, name: str) -> list[dict[str, Any]]:
    found = [one for one in exporter.get_finished_spans() if one.name == name]
    return [dict(one.attributes) for one in sorted(found, key=lambda one: one.start_time)]


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_call_is_one_trace_down_to_the_bytes(
    tmp_path: Path, worker: str, exporter: InMemorySpanExporter
) -> None:
    trace_id, broken_id = new_trace_id(), new_trace_id()
    call = {"kind": "execute", "instrument": "dial", "fields": {"name": "twice", "args": []}}
    async with lab_in(tmp_path, worker) as lab:
        service = LabService(lab)
        with tracing(trace_id):
            assert await service.handle("command", call) == 8.0
        with tracing(broken_id), pytest.raises(DuodaqError, match="broken"):
            await lab.command("dial", Execute("break_down"))
        assert SPANS.taker is not None
    assert SPANS.taker is None
    leased: list[Any] = [("lease", [("exchange", []), ("exchange", [])])]
    at_the_port = [("worker", leased)] if worker == "process" else leased
    assert tree(exporter, trace_id) == [("request", [("command", [("runtime", at_the_port)])])]
    ((name, below),) = tree(exporter, broken_id)
    assert (name, below[0][0]) == ("command", "runtime")
    first = of_name(exporter, "exchange")[0]
    assert (first["duodaq.request"], first["duodaq.reply"]) == ("A?\\n", "4\\n")
    assert (first["duodaq.port"], first["duodaq.holder"]) == ("line", "v2.dial")
    assert (first["duodaq.sent_bytes"], first["duodaq.heard_bytes"]) == (3, 2)
    assert of_name(exporter, "lease")[0]["duodaq.wait_s"] >= 0
    assert of_name(exporter, "request")[0]["duodaq.op"] == "command"
    failed = [one for one in exporter.get_finished_spans() if one.status.status_code.name == "ERROR"]
    assert {one.name for one in failed} == {"command", "runtime"}
    assert all("broken" in one.status.description for one in failed)
    if worker == "process":
        assert of_name(exporter, "worker")[0]["duodaq.worker"] == "v2-process"


class MeterLine(MemoryTransport):
    """A power meter, which says nothing sensible once it is `ill`."""

    ill = False

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        self.peer = self.peer or MemoryTransport("meter")
        await super().open(receiver, timeout_s)

    def write_nowait(self, data: bytes) -> int:
        if data.endswith(b"?\n"):
            self.take(b"what\n" if self.ill else b"632\n" if data == b"W?\n" else b"1\n")
        return len(data)


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_call_of_an_actor_is_one_trace_down_to_the_bytes_done_failed_or_refused(
    worker: str, exporter: InMemorySpanExporter
) -> None:
    done_id, failed_id, refused_id = new_trace_id(), new_trace_id(), new_trace_id()
    line, limits = MeterLine(), {"wavelength_nm": (400.0, 1100.0)}
    meter = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="line", limits=limits)
    definition = LabDefinition(
        "traced",
        ports=(PortDefinition("line", serial={"path": "nowhere"}, codec="newport1830c"),),
        instruments=(meter,),
        v4=RuntimeDefinition("v4", worker),
        observers=ObserverDefinition(otlp="http://127.0.0.1:9"),
    )
    read = {"kind": "get", "instrument": "meter", "fields": {"name": "wavelength_nm"}}
    beyond = {"kind": "set", "instrument": "meter", "fields": {"name": "wavelength_nm", "value": 2000}}
    async with Lab(definition, transports={"line": line}) as lab:
        service = LabService(lab)
        with tracing(done_id):
            await service.handle("command", read)
        line.ill = True
        with tracing(failed_id), pytest.raises(DuodaqError):
            await service.handle("command", read)
        with tracing(refused_id), pytest.raises(DuodaqError):
            await service.handle("command", beyond)
    for trace_id in (done_id, failed_id):
        layers = dict(chain(tree(exporter, trace_id)))
        wanted = ["request", "command", "runtime", *(["worker"] if worker == "process" else []), "lease", "exchange"]
        assert [*layers] == wanted
    spans = {f"{one.context.trace_id:032x} {one.name}": one for one in exporter.get_finished_spans()}
    for trace_id, reply in ((done_id, "632\\n"), (failed_id, "what\\n")):
        facts = spans[f"{trace_id} exchange"].attributes
        assert (facts["duodaq.request"], facts["duodaq.reply"]) == ("W?\\n", reply)
        assert (facts["duodaq.port"], facts["duodaq.holder"]) == ("line", "v4.meter")
    assert tree(exporter, refused_id) == [("request", [("command", [])])], "of a refused one not a byte was sent"
    said = {
        key: spans[key].status
        for key in (f"{one} {name}" for one in (failed_id, refused_id) for name in ("request", "command"))
    }
    assert {key: status.status_code.name for key, status in said.items()} == dict.fromkeys(said, "ERROR")
    assert "1100" in said[f"{refused_id} command"].description


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_call_of_a_hosted_driver_that_is_refused_is_one_trace_with_the_reason(
    tmp_path: Path, worker: str, exporter: InMemorySpanExporter
) -> None:
    beyond, unknown, held, latched = (new_trace_id() for _ in range(4))
    turn = {"kind": "set", "instrument": "dial", "fields": {"name": "zero", "value": 1.0}}
    async with lab_in(tmp_path, worker, limits={"zero": (-5.0, 5.0)}, passive=frozenset({"angle"})) as lab:
        service = LabService(lab)
        anna = service.session(Client("anna", "notebook"))
        await anna.handle("control", {"instrument": "dial", "name": None, "take_over": False})
        with tracing(held), pytest.raises(NotInControlError):
            await service.session(Client("bob", "script")).handle("command", turn)
        await anna.handle("release", {"instrument": "dial"})
        with tracing(beyond), pytest.raises(DuodaqError, match="5"):
            await service.handle("command", {**turn, "fields": {"name": "zero", "value": 2000.0}})
        with tracing(unknown), pytest.raises(DuodaqError, match="no_such"):
            await service.handle("command", {**turn, "kind": "execute", "fields": {"name": "no_such", "args": []}})
        await lab.stop_all()
        with tracing(latched), pytest.raises(UnsafeStateError):
            await service.handle("command", turn)
    assert of_name(exporter, "exchange") == [], "of what is refused not a byte is sent"
    spans = {f"{one.context.trace_id:032x} {one.name}": one for one in exporter.get_finished_spans()}
    for trace_id, reason in ((held, "anna"), (beyond, "2000"), (unknown, "no_such"), (latched, "latch")):
        layers = [name for name, _ in chain(tree(exporter, trace_id))]
        assert layers[:2] == ["request", "command"][: 1 if trace_id == held else 2], "who may not, asks no manager"
        for layer in layers[:2]:
            status = spans[f"{trace_id} {layer}"].status
            assert status.status_code.name == "ERROR"
            assert reason in status.description, (layer, reason)


async def test_the_trace_of_a_client_goes_on_in_the_lab(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    trace_id = new_trace_id()
    host = LabHost(lab_in(tmp_path, "inline"))

    async def ready() -> None:
        client = await LinkClient.open(find_lab("traced"), version=LAB_PROTOCOL)
        call = {"kind": "execute", "instrument": "dial", "fields": {"name": "angle", "args": []}}
        with tracing(trace_id):
            assert await client.request("command", call) == 4.0
        await client.aclose()
        host.ask_to_end()

    await host.run(ready)
    names = ["request", "command", "runtime", "lease", "exchange"]
    (one,) = tree(exporter, trace_id)
    for name in names:
        assert one[0] == name
        one = one[1][0] if one[1] else ("", [])


async def test_a_click_on_the_page_is_one_trace_down_to_the_bytes(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    web = pytest.importorskip("duodaq.web")
    websockets = pytest.importorskip("websockets.asyncio.client")
    click = {"type": "do", "id": 1, "name": "command", "target": "dial", "body": {"kind": "execute", "name": "angle"}}
    async with lab_in(tmp_path, "process") as lab, web.PageServer(lab, WebDefinition(port=0)) as page:
        place = page.address.replace("http", "ws") + "api/live"
        async with websockets.connect(place, proxy=None) as live, asyncio.timeout(10):
            await live.send(json.dumps(click))
            while (said := json.loads(await live.recv()))["type"] != "done":
                pass
            assert (said["ok"], said["result"]["result"]) == (True, 4.0)
    (exchange,) = [one for one in exporter.get_finished_spans() if one.name == "exchange"]
    layers = [*chain(tree(exporter, f"{exchange.context.trace_id:032x}"))]
    assert layers == [(name, 1) for name in ("request", "command", "runtime", "worker", "lease", "exchange")]
    assert (exchange.attributes["duodaq.request"], exchange.attributes["duodaq.reply"]) == ("A?\\n", "4\\n")


async def test_what_nobody_asked_for_by_a_call_makes_no_span(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    async with lab_in(tmp_path, "inline") as lab:
        with tracing():
            lab.manager.broker.port("line")
        port = lab.manager.broker.port("line")
        await port.exchange(b"A?\n", holder="somebody")
        with tracing():
            await port.exchange(b"A?\n", holder="somebody")
    assert exporter.get_finished_spans() == ()


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    heard: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


async def test_a_collector_is_sent_all_spans_before_the_lab_has_ended(tmp_path: Path) -> None:
    import gzip

    with collector() as (endpoint, heard):
        async with lab_in(tmp_path, "inline", endpoint) as lab:
            await lab.command("dial", Execute("angle"))
    assert {path for path, _ in heard} == {"/v1/traces"}
    names: list[str] = []
    for _, body in heard:
        plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        told = ExportTraceServiceRequest.FromString(plain)
        names += [s.name for r in told.resource_spans for scope in r.scope_spans for s in scope.spans]
    assert sorted(names) == ["command", "exchange", "lease", "runtime"]


async def test_a_collector_that_is_not_there_holds_up_no_call_and_no_end(tmp_path: Path) -> None:
    from duodaq.clock import monotonic_s

    async with lab_in(tmp_path, "inline") as lab:
        for _ in range(3):
            assert await lab.command("dial", Execute("angle")) == 4.0
        spans, begun_s = lab.observers._spans, monotonic_s()
    assert monotonic_s() - begun_s < 15.0
    await its_last_try(spans)  # which it says in the log, and counts


async def test_spans_that_no_collector_takes_are_bounded_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duodaq.app import samples_of
    from duodaq.telemetry import OtelSpans, _otel, _span_queue, event_counts

    def told(lab: Lab) -> dict[tuple[str, ...], Any]:
        return {sample.labels: sample.value for sample in samples_of(lab) if sample.name == "duodaq_spans"}

    key = ("warning", "the collector takes no spans")
    before = event_counts().get(key, 0)
    monkeypatch.setattr(_span_queue, "MOST", 8)
    monkeypatch.setattr(_otel, "MOST", 8)
    monkeypatch.setattr(_otel, "EXPORT_S", 0.2)
    lab = lab_in(tmp_path, "inline")
    async with lab:
        taken = lab.observers._spans
        assert isinstance(taken, OtelSpans)
        for _ in range(30):
            with taken.span("request", {}):
                pass
        counted = told(lab)
        assert counted["dropped",] >= 14, "eight wait, and eight more may have been in hand and failed"
        queue = taken.queue
    await its_last_try(taken)
    assert queue.sent == 0
    assert queue.failed + queue.dropped + queue._waiting >= 30
    assert 0 <= queue._waiting <= 8
    assert event_counts()[key] == before + 1
