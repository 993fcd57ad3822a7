"""The commands beside a running lab, in this process: what they say, what they change, and with which code they end."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from rich.console import Console
from rich.prompt import Confirm
from typer.main import get_command

from duodaq.app import Lab, LabService, connect
from duodaq.app._loop_thread import LoopThread
from duodaq.cli import _app, _apply, _init, _preset_work, _record, _status
from duodaq.clock import Deadline, block
from duodaq.link import LAB_PROTOCOL, LabLock, LinkServer
from duodaq.testing import knife_edge, record_run

ROOT = Path(__file__).parents[2]
LAB = """\
[lab]
name = "bench"

[runtimes.v2]
worker = "inline"

[flight_recorder]
keep = 0

[instruments.ticker]
runtime = "v2"
driver = "./drivers.py:Ticker"
poll.ticks = { call = "tick", unit = "V", every = "50 ms" }
passive = true

[instruments.other]
runtime = "v2"
driver = "./drivers.py:Ticker"
passive = true
settings = ["count"]

[alarms.many]
channel = "ticker.ticks"
high = 1e9
"""
DRIVERS = """\
class Ticker:
    count = 0.0

    def tick(self):
        self.count += 1
        return self.count


class Broken(Ticker):
    def __init__(self):
        raise OSError("nothing is plugged in")
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs ``duodaq …`` here, in a folder of the test's own, beside no lab but its own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)

    log = logging.getLogger("duodaq")
    before = (log.level, log.propagate, [*log.handlers])

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["duodaq", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            _app.main()
        said = capsys.readouterr()
        log.level, log.propagate, log.handlers = before[0], before[1], [*before[2]]
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def lab_file(command: Command, tmp_path: Path) -> Path:
    (tmp_path / "drivers.py").write_text(DRIVERS)
    file = tmp_path / "lab.toml"
    file.write_text(LAB)
    return file


@pytest.fixture
def lab(lab_file: Path) -> Iterator[Lab]:
    """The lab, served at its control socket by a thread of this process."""
    thread, lock = LoopThread("served"), LabLock("bench")
    served = Lab.from_file(lab_file)

    async def start() -> LinkServer:
        await served.start()
        server = LinkServer(lock.socket, LabService(served).handle, version=LAB_PROTOCOL)
        await server.start()
        return server

    server = thread.run(start(), 20.0)
    try:
        yield served
    finally:
        thread.run(server.aclose(), 10.0)
        thread.run(served.shutdown(), 20.0)
        lock.release()
        thread.close()


def rewrite(file: Path, *changes: tuple[str, str], more: str = "") -> None:
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    file.write_text(text + more)


NEW = '[instruments.new]\nruntime = "v2"\ndriver = "./drivers.py:Ticker"\n'


def test_a_plan_is_shown_key_by_key_within_eighty_columns_and_nothing_is_done(
    lab: Lab, lab_file: Path, command: Command
) -> None:
    before = lab.definition
    rewrite(lab_file, ("50 ms", "2 s"), more=NEW + "[web]\nport = 8555\n")
    shown = command("apply", lab_file, "--dry-run")
    assert shown.code == 1
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "~ instrument ticker changes" in shown.out
    assert '"50 ms" → "2 s"' in shown.out
    assert "+ instrument new is new" in shown.out
    assert "! web.port stays as it is: it is laid down when the lab starts" in shown.out
    assert "= other: untouched" in shown.out
    plan = json.loads(command("apply", lab_file, "--dry-run", "--json").out)
    assert [[step["name"] for step in unit] for unit in plan["units"]] == [["ticker"], ["new"]]
    assert lab.definition is before


def test_what_is_agreed_to_is_done_and_what_fails_is_said_to_be_as_it_was(
    lab: Lab, lab_file: Path, command: Command
) -> None:
    rewrite(lab_file, more=NEW)
    done = command("apply", lab_file, "--yes")
    assert done.code == 0, done
    assert "✓ instrument new is there" in done.out
    assert "The lab is what the file says." in done.out
    assert "new" in [one.id for one in lab.manager.instruments()]
    assert command("apply", lab_file).out.strip() == "bench is what the file says."
    rewrite(lab_file, ("drivers.py:Ticker", "drivers.py:Broken"))
    failed = command("apply", lab_file, "--yes")
    assert failed.code == 1
    assert "✗ instrument ticker is as it was" in failed.out
    assert "nothing is plugged in" in " ".join(failed.out.split())
    report = json.loads(command("apply", lab_file, "--yes", "--json").out)
    assert (report["complete"], report["units"][0]["done"]) == (False, False)


def test_nobody_to_ask_or_a_no_changes_nothing(
    lab: Lab, lab_file: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(lab_file, more=NEW)
    alone = command("apply", lab_file)
    assert alone.code == 2
    assert "nobody is there to be asked" in alone.err
    assert "--yes" in alone.err
    asked: list[str] = []
    monkeypatch.setattr(_apply, "can_ask", lambda out: True)
    monkeypatch.setattr(Confirm, "ask", lambda question, **_: bool(asked.append(question)))
    assert command("apply", lab_file).code == 1
    assert asked == ["Change it so?"]
    assert "new" not in [one.id for one in lab.manager.instruments()]


def test_a_preset_is_not_loaded_where_nobody_can_be_asked(
    lab: Lab, lab_file: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab_file.parent / "presets").mkdir()
    (lab_file.parent / "presets" / "warm.toml").write_text("[instruments.other]\ncount = 7.0\n")
    for alone in (command("presets", "load", "warm"), command("presets", "load", "warm", "--json")):
        assert (alone.code, "nobody is there to be asked; nothing was set" in alone.err) == (2, True), alone
        assert "--yes" in alone.err
    with connect("bench") as client:
        assert client.other.get("count") == 0.0
        asked: list[str] = []
        monkeypatch.setattr(_preset_work, "can_ask", lambda out: True)
        monkeypatch.setattr(typer, "confirm", lambda question: bool(asked.append(question)))
        assert command("presets", "load", "warm").code == 1
        assert (asked, client.other.get("count")) == (["Set 1 of them?"], 0.0)
        assert command("presets", "load", "warm", "--yes").code == 0
        assert client.other.get("count") == 7.0


def test_a_log_of_no_channel_that_there_is_is_not_begun(lab: Lab, command: Command) -> None:
    typo = command("record", "tiker.*", "--detach")
    assert (typo.code, "Recording" in typo.out) == (2, False), typo
    said = " ".join(typo.err.split())
    assert 'no channel fits tiker.*. Did you mean "ticker.*"? There are: ticker.ticks' in said
    assert lab.logs() == []
    assert command("record", "tiker.*", "ticker.*", "--detach").code == 0, "part of it fits"


def test_a_lab_that_is_stopped_or_not_there_and_a_wrong_file_are_refused_in_a_sentence(
    lab: Lab, lab_file: Path, command: Command
) -> None:
    rewrite(lab_file, more=NEW)
    assert command("stop-all").code == 0
    latched = command("apply", lab_file, "--yes")
    assert latched.code == 1
    assert "duodaq stop-all --reset" in " ".join(latched.err.split())
    rewrite(lab_file, ('name = "bench"', 'name = "elsewhere"'))
    gone = command("apply", lab_file, "--yes")
    assert (gone.code, "no lab 'elsewhere' is running" in gone.err) == (2, True)
    other = command("apply", lab_file, "--yes", "--lab", "bench")
    assert (other.code, 'the one that runs is "bench"' in other.err) == (2, True)
    rewrite(lab_file, ("[instruments.new]", "[instruments.new]\ncolour = 1"))
    wrong = command("apply", lab_file, "--yes")
    assert (wrong.code, "instruments.new.colour" in wrong.err) == (2, True)


def test_a_check_says_what_would_change_in_the_running_lab(lab: Lab, lab_file: Path, command: Command) -> None:
    assert "this lab runs, and is what the file says" in command("check", lab_file).out
    rewrite(lab_file, ("50 ms", "2 s"), more=NEW)
    told = json.loads(command("check", lab_file, "--json").out)
    assert told["instruments"]["new"] == {"runtime": "v2", "port": None}
    assert told["notes"][-1] == f"this lab runs; duodaq apply {lab_file}: ticker changes, new is new"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("colours", ["16", "truecolor"])
def test_a_live_status_fits_the_terminal_and_ends_with_ctrl_c(
    width: int, colours: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = {"16": "standard"}.get(colours, colours)
    out = Console(file=io.StringIO(), force_terminal=True, width=width, height=60, color_system=system)
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_status, "block", wait)
    _status.show_status("bench", out, live=None, as_json=False)
    said = out.file.getvalue()
    assert said.count("Anew each second") >= 2
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert "ticker" in plain
    assert max(len(line) for line in plain.splitlines()) <= width
    assert not re.search(r"\x1b\[[0-9;]*(?:3[07]|9[07]|4[0-9])m", said), "white and black are unseen on one background"


def test_a_status_is_told_once_where_nobody_looks_and_line_by_line_to_programs(
    lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    once = command("status")
    assert once.code == 0
    assert "Anew" not in once.out
    assert max(map(len, once.out.splitlines())) <= 80
    assert json.loads(command("status", "--json").out)["lab"] == "bench"
    waits = iter([None])

    def wait(seconds: float) -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(_status, "block", wait)
    lines = command("status", "--json", "--live").out.splitlines()
    assert [json.loads(line)["lab"] for line in lines] == ["bench", "bench"]


def test_a_status_names_the_alarm_that_stopped_everything(lab: Lab, lab_file: Path, command: Command) -> None:
    rewrite(lab_file, ("high = 1e9", "high = 0.5\nstop_all = true"))
    assert command("apply", lab_file, "--yes").code == 0
    deadline = Deadline(20)
    while not json.loads(command("status", "--json").out)["latched"]:
        assert not deadline.passed, "the alarm stopped nothing"
    while not (told := json.loads(command("status", "--json").out))["stopped_by"]:
        assert not deadline.passed, "nobody is named"
    assert told["stopped_by"] == "the alarm many"
    assert "stop-all is latched, by the alarm many" in command("status").out
    assert lab.last_stop is not None
    assert lab.last_stop[1] == "the alarm many"  # which the page shows
    rewrite(lab_file, ("stop_all = true", "stop_all = false"))
    lab.reset_stop("a test")
    assert json.loads(command("status", "--json").out)["stopped_by"] is None


def test_a_log_whose_reader_has_gone_ends_with_its_command(
    lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def broken_pipe(*_: object, **__: object) -> bool:
        with connect("bench") as other:
            begun.append(len(other.logs()))
        raise SystemExit(1)  # as rich does

    for step in ("_wait", "_begun"):
        with monkeypatch.context() as patched:
            patched.setattr(_record, step, broken_pipe)
            assert command("record", "--name", "log").code == 1
    assert begun == [1, 1]
    with connect("bench") as client:
        assert client.logs() == []


# ---- completion ------------------------------------------------------------------------------------------------------


class Shell(NamedTuple):
    """How a shell asks: its variables for words, of which the last is being typed, and how it gets each answer."""

    name: str
    asks: Callable[[list[str]], dict[str, str]]
    value: Callable[[str], str]


SHELLS = [
    Shell("bash", lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}, lambda line: line),
    Shell(
        "zsh",
        lambda words: {"_TYPER_COMPLETE_ARGS": " ".join(words)},
        lambda line: line.removeprefix("_arguments '*: :((").removesuffix("))'").split('"')[1],
    ),
    Shell(
        "fish",
        lambda words: {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        lambda line: line.split("\t")[0],
    ),
]
WORDS = [
    (["st"], ["status", "stop-all"]),
    (["status", "--lab", ""], ["bench"]),
    (["scan", "stage.x", "0", "1", "2", "--read", "t"], ["ticker"]),
    (["record", "tic"], ["ticker.ticks"]),
    (["migrate", "cutover", "t"], ["ticker"]),
    (["migrate", "status", "--lab", ""], ["bench"]),
    (["alarms", "--acknowledge", ""], ["many"]),
    (["runs", "show", "2"], ["2026a", "2026b"]),
    (["export", "2026a", "--to", "p"], ["parquet"]),
    (["apply", "la"], ["lab.toml"]),
    (["sim", "scpi-"], ["scpi-dmm", "scpi-psu", "scpi-scope"]),
    (["init", "--add", "esp"], ["esp300="]),
]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda one: one.name)
def test_a_shell_completes_what_there_is(
    shell: Shell, lab: Lab, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("2026a", "2026b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    monkeypatch.setenv("_DUODAQ_COMPLETE", f"complete_{shell.name}")
    for words, wanted in WORDS:
        for name, value in shell.asks(["duodaq", *words]).items():
            monkeypatch.setenv(name, value)
        found = [shell.value(line) for line in command().out.splitlines()]
        assert sorted(found) == wanted, words


def test_where_no_lab_runs_nothing_is_completed_and_nothing_is_said(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_DUODAQ_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "3")
    for words in ("duodaq ports tail ", "duodaq status --lab ", "duodaq runs show 1"):
        monkeypatch.setenv("COMP_WORDS", words)
        said = command()
        assert (said.out.strip(), said.err.strip()) == ("", "")


def test_completion_is_installed_and_works_in_a_clean_shell(tmp_path: Path) -> None:
    """Of bash, which is there: as a person does, with a home that is empty, and a shell begun afterwards."""
    home, tools = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    script = tools / "duodaq"
    script.write_text(f"#!{sys.executable}\nfrom duodaq.cli import main\nmain()\n")
    script.chmod(0o755)
    environment = {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "TERM": "dumb",
    }
    # A shell that has more to do stays, as a person's does: which shell it is, is read from who called.
    install = f"{script} --install-completion; exit $?"
    subprocess.run(["bash", "-c", install], env=environment, check=True, capture_output=True, timeout=60)
    asked = (
        "source ~/.bashrc; COMP_WORDS=(duodaq sim esp); COMP_CWORD=2; _duodaq_completion duodaq; echo ${COMPREPLY[@]}"
    )
    answer = subprocess.run(
        ["bash", "--norc", "-c", asked], env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "esp300"


# ---- exit codes ------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every command there is, with those of groups."""
    found: list[str] = []
    for name, one in get_command(_app.app).commands.items():
        inner = getattr(one, "commands", {})
        found += [name] if not inner or one.invoke_without_command else []
        found += [f"{name} {word}" for word in inner]
    return sorted(found)


def documented() -> dict[str, list[str]]:
    """The table of exit codes in the reference: of each command what 0, 1 and 2 mean; empty: it does not end so."""
    text = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    table = text.split("## Exit codes")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "]
    return {name.strip("`"): rest for name, *rest in rows[1:] if not name.startswith("-")}


def test_every_command_has_its_exit_codes_in_the_reference() -> None:
    assert sorted(documented()) == commands()


WRONG = {
    "alarms": ["--lab", "nobody"],
    "apply": ["missing.toml"],
    "check": ["missing.toml"],
    "demo": ["--points", "1"],
    "doctor": ["missing.toml"],
    "export": ["missing", "--to", "csv"],
    "init": ["lab.toml"],
    "migrate convert": ["missing.toml"],
    "migrate cutover": ["dmm", "--lab", "nobody"],
    "migrate rollback": ["dmm", "--lab", "nobody"],
    "migrate shadow": ["dmm", "--lab", "nobody"],
    "migrate status": ["--lab", "nobody"],
    "migrate tick": ["dmm", "docs", "--lab", "nobody"],
    "ports": ["--lab", "nobody"],
    "ports record": ["wire.arrows", "--lab", "nobody"],
    "ports tail": ["p", "--lab", "nobody"],
    "presets diff": ["warm", "--lab", "nobody"],
    "presets list": ["--lab", "nobody"],
    "presets load": ["warm", "--lab", "nobody"],
    "presets save": ["warm", "--lab", "nobody"],
    "record": ["--lab", "nobody"],
    "recover": ["missing"],
    "replay": ["missing"],
    "run": ["missing.toml"],
    "runs": ["--dir", "missing", "nonsense", "--what"],
    "runs diff": ["missing", "other"],
    "runs label": ["missing", "--sample", "x"],
    "runs list": ["since=nonsense"],
    "runs show": ["missing"],
    "scan": ["stage.x", "0", "1", "2", "--lab", "nobody"],
    "scans": ["--lab", "nobody"],
    "scans abort": ["1", "--lab", "nobody"],
    "scans attach": ["1", "--lab", "nobody"],
    "scans pause": ["1", "--lab", "nobody"],
    "scans resume": ["1", "--lab", "nobody"],
    "serve": [],
    "sim": ["nonsense"],
    "status": ["--lab", "nobody"],
    "stop-all": ["--lab", "nobody"],
    "verify": ["--mode", "nonsense"],
}


@pytest.mark.parametrize("name", commands())
def test_what_is_asked_wrongly_ends_with_2_and_one_sentence(name: str, lab_file: Path, command: Command) -> None:
    ended = command(*name.split(), *WRONG[name])
    assert ended.code == 2, ended
    assert documented()[name][2]
    assert "Traceback" not in ended.err + ended.out
    assert ended.err.strip()


def test_what_goes_well_ends_with_0_and_what_does_not_with_1(
    lab: Lab, lab_file: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_init, "_plugged_in", list)
    record_run(tmp_path / "runs" / "one", knife_edge())
    record_run(tmp_path / "runs" / "two", knife_edge())
    well = [
        ["alarms"],
        ["alarms", "--json"],
        ["apply", lab_file],
        ["check", lab_file],
        ["export", "one", "--to", "csv"],
        ["init", "new.toml"],
        ["ports", "--once"],
        ["record", "--detach", "--name", "log"],
        ["record", "--stop", "--name", "log"],
        ["recover", "runs"],
        ["runs"],
        ["runs", "list"],
        ["runs", "show", "one"],
        ["runs", "label", "one", "--sample", "edge"],
        ["runs", "diff", "one", "one"],
        ["status"],
        ["stop-all"],
        ["stop-all", "--reset"],
    ]
    for words in well:
        ended = command(*words)
        assert ended.code == 0, (words, ended)
        assert documented()[" ".join(map(str, words[:2])) if words[0] in ("runs",) and len(words) > 1 else words[0]][0]
    assert command("runs", "diff", "one", "two").code == 1
    rewrite(lab_file, ("high = 1e9", "high = 0.5"))
    assert command("apply", lab_file, "--yes").code == 0
    deadline = Deadline(20)
    while not (ended := command("alarms")).code and not deadline.passed:
        block(0.01)
    assert ended.code == 1
