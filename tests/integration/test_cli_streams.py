"""What a command does where its streams are not a wide terminal: closed, a pipe that ends, narrow, without µ and é."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from duodaq.cli._console import Said, as_it_is
from duodaq.cli._status import _watch
from duodaq.clock import Deadline, block

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="streams as Linux has them")

LAB = """\
[lab]
name = "bänk"

[instruments.{name}]
runtime = "v2"
driver = "./drivers.py:Ticker"
passive = true
poll.ticks = {{ call = "tick", unit = "µV", every = "50 ms" }}
"""
DRIVERS = "class Ticker:\n    def tick(self):\n        return 1.0\n"
NAME = "an_instrument_of_a_name_that_no_terminal_of_eighty_columns_has_room_for_in_a_table"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drivers.py").write_text(DRIVERS)
    (tmp_path / "lab.toml").write_text(LAB.format(name=NAME), encoding="utf-8")
    return tmp_path


def duodaq(folder: Path, *words: str, closed: int | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """``duodaq …`` there, with one of its standard streams closed, and with these variables."""
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    environment |= {"XDG_RUNTIME_DIR": str(folder), **{key: value for key, value in more.items() if key.isupper()}}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {
        key: value for key, value in more.items() if key.islower()
    }
    return subprocess.run(
        [sys.executable, "-m", "duodaq.cli", *words],
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        preexec_fn=None if closed is None else lambda: os.close(closed),
        **streams,
    )


def test_a_closed_stream_is_no_place_for_a_port_and_harms_no_command(folder: Path) -> None:
    command = [sys.executable, "-m", "duodaq.cli", "run", "lab.toml", "--no-web"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    with subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=lambda: os.closerange(0, 3)) as lab:
        try:
            limit = Deadline(40.0)
            while duodaq(folder, "status").returncode:
                assert not limit.passed, "it does not answer"
            assert [os.readlink(f"/proc/{lab.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3
            for closed in range(3):
                ended = duodaq(folder, "status", "--json", closed=closed)
                assert (ended.returncode, ended.stderr) == (0, ""), closed
                assert (f'"{NAME}"' in ended.stdout) == (closed != 1)
            lab.terminate()
            assert lab.wait(30.0) == 0
        finally:
            lab.kill()


def test_a_lab_says_first_where_its_page_is_and_says_it_once(folder: Path) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "duodaq.cli", "run", "lab.toml", "--web-port", "0"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    with (folder / "said").open("w") as said:
        lab = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    limit = Deadline(40.0)
    try:
        while "Attach with" not in (folder / "said").read_text(encoding="utf-8"):
            assert not limit.passed, "it does not start"
            block(0.05)
        lab.terminate()
        assert lab.wait(30.0) == 0
    finally:
        lab.kill()
        lab.wait()
    lines = (folder / "said").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Starting bänk."
    assert lines[1].startswith("bänk is running")
    assert lines[3].startswith("Its page is at http://127.0.0.1:")
    assert sum("http://" in line for line in lines) == 1
    assert any("instrument state" in line for line in lines[5:])  # the log, from then on


def test_where_a_letter_cannot_be_written_another_is(folder: Path) -> None:
    ended = duodaq(folder, "check", "lab.toml", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("b\\xe4nk: 0 ports, 1 instrument in V2")
    assert f"\n - {NAME}" in ended.stdout
    ended = duodaq(folder, "check", "lab.toml", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(ended.stdout)["lab"] == "bänk"
    ended = duodaq(folder, "check", "gibt's nicht — µ.toml", PYTHONIOENCODING="ascii")
    assert ended.returncode == 2
    assert ended.stderr.startswith("duodaq: gibt's nicht - u.toml: ")


@pytest.mark.parametrize("words", [["--help"], ["check", "lab.toml"], ["doctor", "--json"], ["stop-all"], ["frob"]])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(words: list[str], folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ended = duodaq(folder, *words, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ended.returncode == (2 if words in (["frob"], ["stop-all"]) else 1)


@pytest.mark.parametrize("columns", [{}, {"COLUMNS": "20"}])
def test_what_goes_into_a_pipe_is_neither_wrapped_nor_cut_nor_padded(columns: dict[str, str], folder: Path) -> None:
    said = duodaq(folder, "check", "lab.toml", **columns).stdout
    assert [line for line in said.splitlines() if line != line.rstrip()] == []
    told = json.loads(duodaq(folder, "check", "lab.toml", "--json").stdout)
    if not columns:
        assert [line.strip(" ·") for line in said.splitlines()[1:-1]] == told["notes"]
    else:
        assert "The file is right." in said


def test_a_word_too_many_is_said_in_one_sentence(folder: Path) -> None:
    for words in (
        ["status", "--frobnicate"],
        ["check"],
        ["scan", "a.x", "0", "1", "many"],
        ["frob"],
        ["check", "/x" * 90],
    ):
        ended = duodaq(folder, *words, COLUMNS="40")
        assert ended.returncode == 2
        assert ended.stderr.startswith("duodaq: ")
        assert ended.stderr.count("\n") == 1


def test_a_picture_that_is_drawn_anew_is_as_narrow_as_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = Said()
    assert (said.width, as_it_is(said).width) == (80, 40)
    drawn: list[Any] = []
    monkeypatch.setattr("duodaq.cli._status.Live", lambda console, **_: drawn.append(console.width) or nullcontext())
    monkeypatch.setattr("duodaq.cli._status.block", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _watch([], said)
    assert drawn == [40]
