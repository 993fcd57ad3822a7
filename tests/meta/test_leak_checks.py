"""The leak fixture itself: each kind of leak fails the test that made it, by name, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HEADER = """
import asyncio, os, subprocess, sys, threading, pytest
from duodaq.clock import block, pause
"""

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
markers = serial
"""

LEAKS = [
    (
        """
async def forever():
    await asyncio.Event().wait()

async def test_leaks():
    asyncio.create_task(forever(), name="stray")
""",
        "*task 'stray' (forever at *) was still pending*",
    ),
    (
        """
def test_leaks():
    threading.Thread(target=threading.Event().wait, args=(20,), name="stray", daemon=True).start()
""",
        "*thread 'stray' (daemon) is still running*",
    ),
    (
        """
def test_leaks():
    os.pipe()
""",
        "*2 descriptors on pipe:* still open*",
    ),
    (
        """
def test_leaks():
    os.posix_spawn(sys.executable, [sys.executable, "-c", "import threading; threading.Event().wait(20)"], {})
""",
        "*child process * still there*",
    ),
    (
        """
def test_leaks():
    os.posix_spawn("/bin/true", ["true"], {})
""",
        "*child process * nobody awaited it*",
    ),
    (
        """
@pytest.mark.leaks_thread
def test_leaks():
    pass
""",
        "*needs a reason*",
    ),
    (
        """
@pytest.mark.leaks_thread("shown to be refused")
def test_leaks():
    threading.Thread(target=block, args=(4,), name="stray").start()
""",
        "*thread 'stray' (not a daemon)*",
    ),
]

CLEAN = """
async def test_task_that_ends_one_step_later():
    task = asyncio.create_task(pause(0))
    asyncio.get_running_loop().call_soon(task.cancel)

def test_thread_that_ends_soon():
    threading.Thread(target=block, args=(0.05,)).start()

def test_child_that_is_awaited():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.leaks_thread("a driver that hangs")
def test_declared_daemon():
    threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()

@pytest.fixture(scope="module")
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)

def test_what_a_wider_fixture_holds_is_not_a_leak(pipe):
    pass
"""


@pytest.fixture
def lab_of_tests(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # half of the time would go into what nobody uses here
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_asyncio.plugin,xdist.plugin,pytester")
    pytester.makeconftest(
        (request.config.rootpath / "tests" / "conftest.py").read_text().replace("leaks(daemons", "leaks(0.5, daemons")
    )
    pytester.makeini(INI)
    return pytester


def test_each_leak_fails_the_test_that_made_it_and_is_named(lab_of_tests: pytest.Pytester) -> None:
    lab_of_tests.makepyfile(HEADER + "".join(body.replace("_leaks", f"_{i}") for i, (body, _) in enumerate(LEAKS)))
    result = lab_of_tests.runpytest_subprocess("-p", "no:cacheprovider", "-rE")
    result.assert_outcomes(passed=len(LEAKS) - 1, errors=len(LEAKS))
    for _, expected in LEAKS:
        result.stdout.fnmatch_lines([expected])


def test_what_ends_in_time_or_is_declared_passes(lab_of_tests: pytest.Pytester) -> None:
    lab_of_tests.makepyfile(HEADER + CLEAN)
    result = lab_of_tests.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=5)


def test_marked_test_may_not_skip_itself_where_all_is_installed(
    lab_of_tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUODAQ_MUST_RUN", "serial,browser")
    lab_of_tests.makepyfile(
        test_marked="import pytest\n@pytest.mark.serial\ndef test_a():\n    pytest.skip('no port')\n",
        test_other="import pytest\ndef test_b():\n    pytest.skip('as it may')\n",
        test_whole="import pytest\npytest.importorskip('no_such_module')\n",
    )
    result = lab_of_tests.runpytest_subprocess("-p", "no:cacheprovider", "--continue-on-collection-errors")
    result.assert_outcomes(failed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*serial test skipped itself: *no port*"])


SIDE_BY_SIDE = """
import os, pytest

@pytest.mark.parametrize("number", range(4))
def test_lab_of_its_own(number, worker_id):
    assert os.environ["XDG_RUNTIME_DIR"].endswith("/" + worker_id)
    print("runs in", os.environ["XDG_RUNTIME_DIR"])
    assert number

def test_leaks():
    os.pipe()

@pytest.mark.serial
def test_skips():
    pytest.skip("no port")

def test_crashes():
    os._exit(1)
"""


def test_side_by_side_every_worker_has_a_run_directory_of_its_own_and_the_same_checks(
    lab_of_tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.setenv("DUODAQ_MUST_RUN", "serial,browser")
    lab_of_tests.makepyfile(SIDE_BY_SIDE)
    result = lab_of_tests.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", "--dist", "worksteal")
    result.assert_outcomes(passed=4, failed=3, errors=1)
    result.stdout.fnmatch_lines_random(
        ["*2 descriptors on pipe:* still open*", "*serial test skipped itself: *no port*", "*crashed while running*"]
    )
    (where,) = [line.split()[-1] for line in result.outlines if line.startswith("runs in")]
    assert not Path(where).parent.exists()


def test_a_test_that_must_run_alone_says_why(lab_of_tests: pytest.Pytester) -> None:
    lab_of_tests.makepyfile("import pytest\n@pytest.mark.alone\ndef test_a():\n    pass\n")
    result = lab_of_tests.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*alone needs a reason in words: *::test_a"])
