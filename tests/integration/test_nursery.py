"""Simulators from the nursery: to whoever launched them what a program of their own is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from duodaq.errors import ConfigError, PortLostError
from duodaq.sim import launch
from duodaq.testing import _nursery

pytestmark = pytest.mark.skipif(not _nursery.at_hand(), reason="there is no nursery on this system")


def test_it_is_a_child_of_ours_with_a_session_and_the_folder_and_the_environment_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with launch("esp300") as process:
        found = psutil.Process(process.pid)
        assert (found.ppid(), os.getsid(process.pid), found.cwd()) == (os.getpid(), process.pid, str(tmp_path))
        assert Path(process.address).parent.parent == tmp_path


def sockets_of(pid: int | str) -> set[str]:
    found = (os.path.realpath(file) for file in Path(f"/proc/{pid}/fd").iterdir())
    return {Path(target).name for target in found if "socket:" in target or "pipe:" in target}


def test_it_holds_no_line_of_ours_or_of_another(simulators_at_hand: _nursery.Nursery) -> None:
    with launch("esp300") as one, launch("esp300") as two:
        nursery = simulators_at_hand._process.pid
        assert one._process.stdin is not None
        assert two._process.stdin is not None
        lines = {os.readlink(f"/proc/{process.pid}/fd/0") for process in (one, two)}
        assert len(lines) == 2
        assert sockets_of(one.pid) & sockets_of(two.pid) <= sockets_of("self")  # stderr, where that is a pipe
        assert not sockets_of(one.pid) & (sockets_of(nursery) - {Path(f"/proc/{nursery}/fd/2").resolve().name})
        assert len(lines & sockets_of("self")) == 2


def test_it_ends_with_the_code_or_the_signal_that_ended_it() -> None:
    process = launch("esp300")
    assert process.stop() == 0
    process = launch("esp300")
    os.kill(process.pid, signal.SIGKILL)
    assert process.stop() == -signal.SIGKILL


def test_one_that_cannot_begin_says_why_where_we_say_things(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((PortLostError, ConfigError), match="exit code 2"):
        launch("esp300", model="ESP9")
    assert "ESP9" in capfd.readouterr().err


def test_two_begin_as_two_that_were_started_and_not_one_where_the_other_left_off() -> None:
    with launch("esp300") as one, launch("esp300") as two:
        assert one.address != two.address
        assert one.report() == two.report()


@pytest.fixture(scope="module")
def commands() -> Iterator[_nursery.Nursery]:
    one = _nursery.Nursery(_nursery.COMMANDS)
    yield one
    one.close()


SCRIPTS = {
    "what it is": "import os, sys\nprint(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), os.environ['MARK'])\n"
    "print(os.getsid(0) == os.getpid(), sys.stdin.read(), sys.stdout.isatty(), sys.modules['__main__'].__file__)",
    "threads and farewells": "import atexit, threading\natexit.register(print, 'farewell')\n"
    "threading.Timer(0.1, print, ('thread',)).start()\nprint('end')",
    "a code": "import sys\nprint('so far')\nsys.exit(3)",
    "words": "import sys\nsys.exit('so it is')",
    "no code": "import sys\nsys.exit()",
    "an error": "print('so far')\n1 / 0",
    "Ctrl-C": "import os, signal\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGINT)\nprint('never')",
    "an import": "from beside import what\nprint(what)",
    "a letter": "print('µ×')",
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_script_does_and_ends_as_in_an_interpreter_of_its_own(
    commands: _nursery.Nursery, tmp_path: Path, what: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPTS[what])
    (tmp_path / "beside.py").write_text("what = 'beside'")
    ended = []
    for begin in (subprocess.Popen, commands.popen):
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = {**os.environ, "MARK": "this one"}
        words = [sys.executable, "script.py", "a", "b c"]
        with begin(words, cwd=tmp_path, env=environment, text=True, start_new_session=True, **streams) as program:
            out, err = program.communicate("said to it", timeout=60)
        ended.append((program.returncode, out, err.splitlines()[-1:]))
    assert ended[0] == ended[1]


def test_a_command_says_and_ends_as_one_of_its_own(commands: _nursery.Nursery, tmp_path: Path) -> None:
    for words in (["--help"], ["check", "nothing.toml"], ["runs", "--no-such"]):
        ended = []
        for begin in (subprocess.Popen, commands.popen):
            command = [sys.executable, "-m", "duodaq.cli", *words]
            with begin(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
                ended.append((*program.communicate(timeout=60), program.returncode))
        assert ended[0] == ended[1]
