"""What the Makefile and `.ci/run` do where a machine is barer than they can do with, and when tests fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = ROOT / "Makefile"
WITHOUT_PIP = """\
#!/bin/sh
if [ "$1" = -m ]; then mkdir -p .venv/bin && touch .venv/bin/python && echo "ensurepip is not available" >&2; exit 1; fi
"""
PYTEST = """\
#!/bin/sh
echo "python $*"
case "$*" in *"not alone"*) exit $SIDE_BY_SIDE;; *) exit $ONE_BY_ONE;; esac
"""
MAKE = """\
#!/bin/sh
echo "make $*"
if [ "$1" = test ]; then cat "$CLOSING"; exit $ENDS_WITH; fi
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it as from a terminal: what a `make` above has set is not for this one."""
    here = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "ARGS", "WORKERS"}}
    return subprocess.run(
        command, cwd=folder, env=here | environment, capture_output=True, text=True, check=False, timeout=60
    )


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_an_environment_that_could_not_be_made_is_not_taken_for_one_the_next_time(tmp_path: Path) -> None:
    shutil.copy(MAKEFILE, tmp_path)
    program(tmp_path / "python", WITHOUT_PIP)
    for _ in range(2):
        made = run("make", f"PYTHON={tmp_path}/python", ".venv/bin/python", folder=tmp_path)
        assert made.returncode != 0
        assert "ensurepip is not available" in made.stderr
    assert not (tmp_path / ".venv").exists()


def make_test(folder: Path, *words: str, side_by_side: int = 0, one_by_one: int = 0) -> tuple[bool, list[str]]:
    """Whether `make test` succeeds where pytest ends with these codes, and how pytest was called."""
    shutil.copy(MAKEFILE, folder)
    (folder / "tests" / "unit").mkdir(parents=True, exist_ok=True)
    (folder / "tests" / "unit" / "test_a.py").write_text('@pytest.mark.alone("judges times")\ndef test_a(): ...\n')
    (folder / "tests" / "unit" / "test_b.py").write_text("def test_b(): ...\n")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    program(folder / ".venv" / "bin" / "python", PYTEST)
    (folder / ".venv" / ".has-dev").touch()
    codes = {"SIDE_BY_SIDE": str(side_by_side), "ONE_BY_ONE": str(one_by_one)}
    made = run("make", "test", *words, folder=folder, **codes)
    return made.returncode == 0, [line for line in made.stdout.splitlines() if line.startswith("python ")]


SIDE_BY_SIDE = "python -m pytest -q -n 5 --dist worksteal -m not soak and not alone"
ONE_BY_ONE = "python -m pytest -q -m alone and not soak tests/unit/test_a.py"


def test_tests_run_side_by_side_and_those_marked_alone_one_by_one(tmp_path: Path) -> None:
    assert make_test(tmp_path) == (True, [SIDE_BY_SIDE, ONE_BY_ONE])
    assert make_test(tmp_path, "WORKERS=2")[1][0] == SIDE_BY_SIDE.replace("-n 5", "-n 2")


@pytest.mark.parametrize(("side_by_side", "one_by_one"), [(1, 0), (0, 1), (5, 0), (0, 5), (3, 1)])
def test_a_failure_of_either_call_fails_and_keeps_the_other_from_nothing(
    tmp_path: Path, side_by_side: int, one_by_one: int
) -> None:
    made = make_test(tmp_path, side_by_side=side_by_side, one_by_one=one_by_one)
    assert made == (False, [SIDE_BY_SIDE, ONE_BY_ONE])


def test_after_an_interrupt_no_more_tests_are_begun(tmp_path: Path) -> None:
    assert make_test(tmp_path, side_by_side=2) == (False, [SIDE_BY_SIDE])


def test_chosen_tests_run_one_by_one(tmp_path: Path) -> None:
    called = ["python -m pytest -q -m not soak tests/x.py -vv -s"]
    assert make_test(tmp_path, "ARGS=tests/x.py -vv -s") == (True, called)
    assert make_test(tmp_path, "ARGS=tests/x.py -vv -s", one_by_one=1) == (False, called)


def run_ci(folder: Path, said: str, ends_with: int = 0) -> tuple[int, list[str]]:
    """The exit code of `.ci/run` where `make test` says and does this, and its last lines."""
    program(folder / ".ci" / "run", (ROOT / ".ci" / "run").read_text())
    program(folder / "bin" / "make", MAKE)
    (folder / "closing").write_text(said)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    ran = run(".ci/run", folder=folder, PATH=path, CLOSING=str(folder / "closing"), ENDS_WITH=str(ends_with))
    return ran.returncode, ran.stdout.partition("make --jobs=2 --output-sync check docs\n")[2].splitlines()


TWO_CALLS = """\
make: 12 passed by in 3s
1200 passed, 1 skipped, 30 deselected in 250.50s (0:04:10)
FAILED tests/unit/test_x.py::test_y - assert 0
29 passed, 1 xfailed, 1201 deselected in 61.20s (0:01:01)
"""


def test_ci_closes_with_the_counts_of_each_call_and_of_all(tmp_path: Path) -> None:
    code, lines = run_ci(tmp_path, TWO_CALLS)
    assert code == 0
    assert lines[:2] == [
        "pytest: 1200 passed, 1 skipped, 30 deselected in 250.50s",
        "pytest: 29 passed, 1 xfailed, 1201 deselected in 61.20s",
    ]
    assert lines[2].startswith("pytest: 1229 passed, ")
    assert {"1 skipped", "1 xfailed"} <= set(lines[2].removesuffix(" altogether in 312 s").split(", "))
    assert len(lines) == 3


def test_ci_understands_the_closing_line_of_chosen_tests(tmp_path: Path) -> None:
    code, lines = run_ci(tmp_path, "========= 3 passed, 9 deselected in 1.23s =========\n")
    assert (code, lines[0]) == (0, "pytest: 3 passed, 9 deselected in 1.23s")


def test_ci_fails_when_tests_fail_and_when_none_has_run(tmp_path: Path) -> None:
    assert run_ci(tmp_path, "1 failed, 29 passed in 3.00s\n", ends_with=2) == (2, [])
    assert run_ci(tmp_path, "no tests ran in 0.01s\n")[0] != 0
    assert run_ci(tmp_path, "2 skipped in 0.01s\n")[0] != 0
