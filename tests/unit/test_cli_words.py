"""What comes from a lab file, a device or an exception is printed as it is, whatever brackets are in it."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.main import get_command

from duodaq.cli import _completion as completion
from duodaq.cli._app import app
from duodaq.cli._ports import _table
from duodaq.cli._report import instrument_table
from duodaq.cli._status import status_page
from duodaq.cli._stop_all import _print_stops

WORDS = ["[/dev/pts/3] is gone", "[bold]", "a [b] c"]


def printed(show, *args) -> str:
    out = Console(file=io.StringIO(), width=200)
    show(*args, out)
    return out.file.getvalue()


@pytest.mark.parametrize("words", WORDS)
def test_a_stop_that_failed_says_why_in_its_own_words(words: str):
    report = {"ended": 0, "on_wire_ns": {words: 1}, "failures": {words: words}, "no_fail_safe": [words]}
    said = printed(_print_stops, {words: report}, {words: words})
    assert said.count(words) == 8


def test_a_stop_by_the_watchdog_alone_is_told_once_and_claims_nothing_of_the_manager():
    wire = {"written_ns": 1}
    report = {"ended": None, "on_wire_ns": {"stage": 1}, "failures": {"manager": "no answer"}, "no_fail_safe": []}
    said = printed(_print_stops, {"iso": report | {"watchdog": {"stage": wire}}}, {})
    assert said.count("stage: stop is on the wire, by the watchdog") == said.count("stage:") == 1
    assert "waiting commands" not in said


def test_a_stop_tells_of_each_instrument_what_was_done_and_of_those_that_got_nothing():
    did = {"stage": "stop is on the wire of motion", "dmm": "nothing was sent: it neither moves nor emits"}
    did |= {"laser": "NOT stopped: the cable is out", "chopper": "nothing was sent: it has no stop"}
    report = {"ended": 0, "on_wire_ns": {"motion": 1}, "failures": {"laser": "the cable is out"}, "did": did}
    said = printed(_print_stops, {"iso": report | {"no_fail_safe": ["chopper"]}}, {})
    assert [line.strip() for line in said.splitlines()[1:-1]] == [
        "stage: stop is on the wire of motion",
        "dmm: nothing was sent: it neither moves nor emits",
        "laser: NOT stopped: the cable is out",
        "chopper: nothing was sent: it has no stop; no fail-safe: look there yourself",
    ]


@pytest.mark.parametrize("words", WORDS)
def test_a_status_names_lab_port_and_holder_as_they_are(words: str):
    instrument = {"id": "a", "runtime": "v2", "worker": words, "state": "error", "port": words, "message": words}
    instrument |= {"since_ns": 1, "restarts": 1, "mode": "process", "pid": 812}
    port = {"name": words, "state": "open", "holder": words, "queue": 0, "exchanges": 1, "errors": 1}
    status = {"lab": words, "state": "running", "v2": "running", "v4": "running", "latched": False, "recording": words}
    status |= {"uptime_s": 5.0}
    said = printed(
        lambda state, out: out.print(*status_page(state)),
        status | {"instruments": [instrument], "ports": [port | {"last_error": words, "last_error_ns": 1}]},
    )
    assert said.count(words) == 8


@pytest.mark.parametrize("state", ["error", "acquiring"])
def test_a_status_says_of_an_alarm_whose_instrument_is_lost_that_its_value_is_old(state: str):
    alarm = {"name": "hot", "instrument": "bath", "channel": "temperature", "state": "normal", "since_ns": 1, "by": ""}
    alarm |= {"value": 22.0, "unit": "degC", "value_ns": 1_000_000_000, "raised": 0, "why": ""}
    instrument = {"id": "bath", "worker": "v2", "state": state, "port": "", "message": "", "mode": "inline", "pid": 0}
    status = {"lab": "cab", "state": "running", "v2": "running", "v4": "running", "latched": False, "recording": ""}
    status |= {"uptime_s": 0.0, "instruments": [instrument], "ports": [], "alarms": [alarm]}
    said = printed(lambda told, out: out.print(*status_page(told)), status)
    assert ("22 degC old" in said) is (state == "error")
    assert ("hot: its value is old, of 01 Jan" in said) is (state == "error")


def test_tables_keep_their_words_whole_in_80_columns():
    instrument = {"id": "dmm", "runtime": "v2", "worker": "v2-process", "state": "acquiring", "port": "rotators"}
    instrument |= {"since_ns": 1_000_000_000, "restarts": 1, "mode": "process", "pid": 81234, "message": ""}
    port = {"name": "rotators", "state": "open", "holder": "virtual:stage pty 812/python", "held_s": 0.2}
    port |= {"waiting": ["v2.a", "v2.b", "v2.c", "v2.d"], "queue": 4, "wait_median_s": 7e-6, "wait_p99_s": 0.229}
    port |= {"exchanges_per_s": 2000, "exchanges": 12345, "errors": 0, "resyncs": 0}
    out = Console(file=io.StringIO(), width=80)
    out.print(instrument_table([instrument]), _table([port]))
    said = out.file.getvalue()
    words = (
        "dmm",
        "v2-process",
        "acquiring",
        "rotators",
        "restarts",
        "open",
        "pty 812/python",
        "v2.c",
        "229 ms",
        "12345",
    )
    assert [word for word in words if word not in said] == []


def test_runs_that_cannot_be_listed_complete_nothing(monkeypatch, tmp_path):
    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    context = SimpleNamespace(params={"directory": tmp_path}, obj=None)
    monkeypatch.setattr("pathlib.Path.iterdir", refused)
    assert completion.runs(context, "") == ["last"]


def test_every_command_that_asks_for_a_lab_or_a_lab_file_completes_it():
    named = [one for one in parameters(get_command(app)) if one.name == "lab" or one.metavar == "LAB.toml"]
    assert len(named) > 20
    assert [one.human_readable_name for one in named if one._custom_shell_complete is None] == []


def parameters(command):
    """Of a command, and of those under it."""
    return [*command.params, *(one for each in getattr(command, "commands", {}).values() for one in parameters(each))]


def test_help_breaks_its_lines_where_the_terminal_does():
    group = get_command(app)
    helps = [one.help for one in (*group.commands.values(), *group.commands["migrate"].commands.values())]
    assert all(helps)
    assert not [text for text in helps if "\n" in text.replace("\n\n", "")]
