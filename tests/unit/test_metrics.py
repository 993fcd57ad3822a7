"""Metrics: every one that is written can be read by a strict parser, is in the table, in the reference, and is used."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from duodaq.app import Lab, exposition, samples_of
from duodaq.app._metrics_server import MetricsServer
from duodaq.clock import Deadline, pause
from duodaq.errors import ConfigError
from duodaq.model import AlarmDefinition, Execute, ObserverDefinition
from duodaq.telemetry import METRICS, Histogram, Sample, exposition_of, get_logger, wants_openmetrics

prometheus = pytest.importorskip("prometheus_client")
from prometheus_client import parser as text_parser  # noqa: E402 - after the look whether it is there
from prometheus_client.openmetrics import parser as strict_parser  # noqa: E402 - after the look whether it is there

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana" / "duodaq.json"
TURNED = AlarmDefinition("turned", "dial", "angle", high=3.0)
Labs = Callable[..., Lab]
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"


async def until(condition, limit_s: float = 20.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed
        await pause(0.002)


def values(lab: Lab, name: str) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples_of(lab) if sample.name == name}


async def test_what_a_lab_exposes_passes_strict_parsers_and_says_what_happened(dial_lab: Labs, tmp_path: Path) -> None:
    async with dial_lab(alarms=(TURNED,)) as lab:
        await lab.start_recording(tmp_path / "run")
        await until(lambda: lab.alarms.status()[0].state == "raised")
        with pytest.raises(Exception, match="broken"):
            await lab.command("dial", Execute("break_down"))
        await until(lambda: lab.recorder is not None and lab.recorder.commits.count > 0)
        await until(lambda: lab.observers.lag.count > 0)
        text, strict = exposition(lab).decode(), exposition(lab, openmetrics=True).decode()
        await lab.stop_all()
        assert values(lab, "duodaq_stops_all") == {(): 1}
        assert values(lab, "duodaq_stop_latched") == {(): True}
        assert values(lab, "duodaq_instrument_changes")["dial", "acquiring"] == 1
    families = {family.name: family for family in text_parser.text_string_to_metric_families(text)}
    stricter = {family.name: family for family in strict_parser.text_string_to_metric_families(strict)}
    assert set(stricter) == set(families)
    assert {name: METRICS[name].kind for name in families} == {name: f.type for name, f in families.items()}
    for name, family in stricter.items():
        assert family.documentation == METRICS[name].words
    (info,) = families["duodaq_lab_info"].samples
    assert info.labels["lab"] == 'the "lab"\\'
    found = {(s.name, *sorted(s.labels.values())): s.value for f in families.values() for s in f.samples}
    assert found["duodaq_commands_total", "dial", "failed"] == 1
    assert found["duodaq_port_exchanges_total", "line"] > 0
    assert found["duodaq_stream_items_total", "dial.angle", "v2"] > 0
    assert found["duodaq_polls_total", "angle", "dial", "done"] > 0
    assert found["duodaq_alarm_state", "raised", "turned"] == 1
    assert found["duodaq_alarm_raised_total", "turned"] == 1
    assert found["duodaq_commit_seconds_count",] > 0
    assert found["duodaq_loop_lag_seconds_bucket", "+Inf"] == found["duodaq_loop_lag_seconds_count",]
    assert found["duodaq_log_events_total", "alarm raised", "error"] >= 1
    assert found["duodaq_instrument_state", "acquiring", "dial", "v2"] == 1
    assert sum(n for (name, *_), n in found.items() if name == "duodaq_instrument_state") == 1


@pytest.mark.promtool
@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool; Debian: apt-get install prometheus")
async def test_promtool_finds_nothing_to_complain_of(dial_lab: Labs, tmp_path: Path) -> None:
    async with dial_lab(alarms=(TURNED,)) as lab:
        await lab.start_recording(tmp_path / "run")
        await until(lambda: lab.alarms.status()[0].state == "raised")
        await until(lambda: lab.recorder is not None and lab.recorder.commits.count > 0)
        text = exposition(lab)
    checked = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(checked.communicate(text), 30)
    assert (checked.returncode, said.decode()) == (0, "")


def test_a_sample_that_is_in_no_table_is_refused() -> None:
    with pytest.raises(KeyError):
        exposition_of([Sample("duodaq_surprise", (), 1)])


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    took = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        took.note(value)
    assert took.buckets() == [("0.1", 2), ("1", 3), ("+Inf", 4)]
    assert (took.count, took.total) == (4, pytest.approx(7.65))


def test_a_warning_is_a_figure_and_what_is_merely_said_is_none() -> None:
    from duodaq.telemetry import event_counts

    log = get_logger("test_metrics")
    before = event_counts()
    log.warning("a thing of test_metrics", port="x")
    log.info("another thing of test_metrics")
    new = {key: count - before.get(key, 0) for key, count in event_counts().items() if count != before.get(key, 0)}
    assert new == {("warning", "a thing of test_metrics"): 1}


# ---- served --------------------------------------------------------------------------------------------------------


async def ask(port: int, request: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, body


async def test_a_scraper_on_this_machine_is_answered_and_nobody_else() -> None:
    server = MetricsServer(0, lambda openmetrics: f"open {openmetrics}\n".encode())
    await server.start()
    try:
        for request, code, body in (
            ("GET /metrics HTTP/1.1\r\nHost: localhost:1\r\n\r\n", "200 OK", "open False\n"),
            ("GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n", "200 OK", "open True\n"),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found", "there is /metrics\n"),
            ("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 Method Not Allowed", "GET it\n"),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403 Forbidden", None),
        ):
            head, said = await ask(server.port, request)
            assert code in head
            assert body is None or said == body
        assert await ask(server.port, "GET /metrics HTTP/1.1\r\nX: " + "x" * 70_000) == ("", "")
    finally:
        await server.aclose()


async def test_a_port_that_is_taken_is_said_and_nothing_is_started(dial_lab: Labs) -> None:
    server = MetricsServer(0, lambda _: b"")
    await server.start()
    try:
        lab = dial_lab(observers=ObserverDefinition(metrics_port=server.port))
        with pytest.raises(ConfigError, match=r"metrics\.port: .* cannot be listened to"):
            await lab.start()
        assert lab.manager.state in ("idle", "stopped")
    finally:
        await server.aclose()


# ---- the table, the dashboard and the reference --------------------------------------------------------------------


def queried() -> Iterator[str]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield from re.findall(r"duodaq_\w+", target["expr"])


def test_every_metric_of_the_dashboard_exists_and_it_shows_what_matters() -> None:
    assert set(queried()) - {metric.series for metric in METRICS.values()} == set()
    shown = " ".join(queried())
    for word in ("mailbox", "lease_wait", "exchanges", "stream_items", "dropped", "restarts", "commit", "lag", "alarm"):
        assert word in shown


def test_every_metric_has_a_sample_somewhere_in_the_source() -> None:
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src" / "duodaq" / "app").glob("*.py"))
    assert [name for name in METRICS if f'"{name}"' not in source] == []


def reference() -> str:
    rows = [
        f"| `{metric.series}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.words} |"
        for metric in METRICS.values()
    ]
    return "\n".join(["| name | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows])


def test_the_reference_is_what_the_table_says() -> None:
    assert reference() in REFERENCE.read_text(encoding="utf-8"), f"write this into {REFERENCE}:\n{reference()}"


def test_telemetry_needs_no_library_of_an_extra() -> None:
    blocked = "import sys\nfor name in ('prometheus_client', 'opentelemetry'): sys.modules[name] = None\n"
    code = f"{blocked}import duodaq.telemetry\nprint(len(duodaq.telemetry.METRICS))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
        ("text/plain, application/openmetrics-text;q=0.2", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
    ],
)
def test_openmetrics_is_given_to_whoever_prefers_it(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_a_name_that_is_no_whole_text_costs_no_other_figure() -> None:
    samples = [Sample("duodaq_alarm_raised", ("a\udc80\n",), 3), Sample("duodaq_stops_all", (), 2)]
    for openmetrics in (False, True):
        text = exposition_of(samples, openmetrics=openmetrics).decode()
        assert 'duodaq_alarm_raised_total{alarm="a\\\\udc80\\n"} 3.0' in text
        assert "duodaq_stops_all_total 2.0" in text
