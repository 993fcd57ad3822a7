"""Logs are structured, carry the trace id, and stay off stdout."""

import io
import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from duodaq.telemetry import configure_logging, current_trace_id, get_logger, new_trace_id, tracing


@pytest.fixture
def stream():
    stream = io.StringIO()
    root = logging.getLogger("duodaq")
    before = (root.handlers[:], root.level, root.propagate)
    yield stream
    root.handlers[:], root.level, root.propagate = before


def test_json_logs_are_one_object_a_line_with_level_logger_time_and_facts(stream):
    configure_logging("INFO", json=True, stream=stream)
    get_logger("ports").warning("line is noisy", port="stage", name="x")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"], line["port"]) == (
        "line is noisy",
        "warning",
        "duodaq.ports",
        "stage",
    )
    assert line["name"] == "x"
    assert line["timestamp"].endswith("Z")


def test_lines_for_a_person_have_the_event_and_the_facts(stream):
    configure_logging("INFO", stream=stream)
    get_logger("ports").error("port is lost", port="stage")
    assert "port is lost" in stream.getvalue()
    assert "port=stage" in stream.getvalue()


def test_the_level_decides_what_is_written(stream):
    configure_logging("WARNING", stream=stream)
    get_logger("ports").info("not interesting")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_what_was_there(stream):
    configure_logging("INFO", stream=io.StringIO())
    configure_logging("INFO", json=True, stream=stream)
    get_logger("ports").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_plain_standard_logging_of_the_same_tree_looks_alike(stream):
    configure_logging("INFO", json=True, stream=stream)
    logging.getLogger("duodaq.other").info("hello %s", "there")
    assert json.loads(stream.getvalue())["event"] == "hello there"


def test_an_exception_is_written_with_its_traceback(stream):
    configure_logging("INFO", json=True, stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("ports").exception("failed")
    assert "ValueError: broken" in json.loads(stream.getvalue())["exception"]


def test_without_configuration_nothing_lands_on_stdout(capsys):
    get_logger("ports").error("somewhere else")
    assert capsys.readouterr().out == ""


def test_a_trace_id_follows_everything_logged_inside(stream):
    configure_logging("INFO", json=True, stream=stream)
    with tracing() as outer, tracing() as inner:
        get_logger("ports").info("inside")
    get_logger("ports").info("outside")
    inside, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert inside["trace_id"] == outer == inner
    assert "trace_id" not in outside


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by fork")
def test_two_children_of_one_parent_draw_different_trace_ids():
    program = (
        "import os\n"
        "from duodaq.telemetry import new_trace_id\n"
        "for _ in range(2):\n"
        "    if not (child := os.fork()):\n"
        "        print(new_trace_id(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    lines = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert len(set(lines)) == 2
    assert all(len(line) == 32 and int(line, 16) >= 0 for line in lines)


def test_a_trace_id_that_came_with_a_request_wins():
    asked = new_trace_id()
    with tracing(), tracing(asked):
        assert current_trace_id() == asked
    assert current_trace_id() is None


def test_trace_ids_are_those_of_one_thread():
    seen: list[str | None] = []
    with tracing():
        thread = threading.Thread(target=lambda: seen.append(current_trace_id()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert len(new_trace_id()) == 32
