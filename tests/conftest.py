"""What every test gets: a stack dump when it crashes or hangs, and a check that it left nothing behind."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from duodaq.sim import _launch
from duodaq.testing import LeakWatch, _nursery

faulthandler.enable()

with contextlib.suppress(ImportError):  # those of one extra alone need no hypothesis
    from hypothesis import HealthCheck, settings

    # A busy machine is no counter-example.
    settings.register_profile("duodaq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("duodaq")

FAILED = pytest.StashKey[bool]()
MUST_RUN = frozenset(filter(None, os.environ.get("DUODAQ_MUST_RUN", "").split(",")))
"""Marks of tests that may not skip themselves, as ``serial,browser``: where all that they need is installed (CI)."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a script: children would be deaf
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.add_cleanup(_own_run_directory(getattr(config, "workerinput", {}).get("workerid", "")))
    for name, what in {
        "leaks_thread": "the test leaves a daemon thread behind on purpose (a driver that hangs for ever)",
        "leaks_fd": "the test leaves a descriptor behind on purpose (held by a driver that hangs for ever)",
        "alone": "the test judges times or takes the machine for itself: `make test` runs no other beside it",
    }.items():
        config.addinivalue_line("markers", f"{name}(reason): {what}; the reason is required")


@pytest.fixture(scope="session", autouse=True)
def simulators_at_hand() -> Iterator[_nursery.Nursery | None]:
    """What `sim.launch` starts comes from the nursery, except in tests of how simulators are started."""
    if not _nursery.at_hand():
        yield None
        return
    one = _nursery.Nursery()
    started = SimpleNamespace(Popen=one.popen, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_launch, "subprocess", started)
        yield one
    one.close()


@pytest.fixture(scope="module")
def simulators_from_the_start(simulators_at_hand: None) -> Iterator[None]:
    """For tests of how simulators are started: each is a new program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_launch, "subprocess", subprocess)
        yield


def _own_run_directory(worker: str) -> Callable[[], None]:
    """Keep the labs of the tests apart from those that this user runs, and theirs from these.

    A worker of pytest-xdist has one in that of its master, which removes it even if the worker has crashed.
    """
    before = os.environ.get("XDG_RUNTIME_DIR")
    if worker:
        own = os.path.join(str(before), worker)
        os.mkdir(own, 0o700)
    else:
        own = tempfile.mkdtemp(prefix="duodaq-tests-")
    os.environ["XDG_RUNTIME_DIR"] = own

    def put_back() -> None:
        shutil.rmtree(own, ignore_errors=True)
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before

    return put_back


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    bare = [item.nodeid for item in items for mark in item.iter_markers("alone") if not _reason(mark)]
    if bare:
        raise pytest.UsageError("@pytest.mark.alone needs a reason in words: " + ", ".join(bare))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    marks = MUST_RUN & {mark.name for mark in item.iter_markers()}
    if report.skipped and marks and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{', '.join(marks)} test skipped itself: {report.longrepr[2]}"
    if call.when == "call":
        item.stash[FAILED] = report.outcome != "passed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report: Any = yield
    if report.skipped and MUST_RUN:
        report.outcome = "failed"
        report.longrepr = f"the whole of {collector.nodeid} skipped itself: {report.longrepr[2]}"
    return report


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[LeakWatch]:
    """Fails the test that leaves a task, thread, descriptor or child process behind, and names what it left."""
    threads, files = (_has_reason(request.node, mark) for mark in ("leaks_thread", "leaks_fd"))
    watch = LeakWatch()
    with watch.over_runners():
        yield watch
    if request.node.stash.get(FAILED, True):
        return  # its traceback keeps alive what it would have closed: the failure itself comes first
    leaks = watch.leaks(daemons_may_stay=threads, files_may_stay=files)
    if leaks:
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


def _has_reason(item: pytest.Item, name: str) -> bool:
    mark = item.get_closest_marker(name)
    if mark is None:
        return False
    if not _reason(mark):
        pytest.fail(f"@pytest.mark.{name} needs a reason in words", pytrace=False)
    return True


def _reason(mark: pytest.Mark) -> str:
    return mark.args[0].strip() if mark.args and isinstance(mark.args[0], str) else ""


@pytest.fixture(scope="session")
def zarr_is_awake() -> None:
    """So does zarr with its event loop and the thread that it compresses in."""
    zarr = pytest.importorskip("zarr")
    zarr.config.set({"threading.max_workers": 1})
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(64,), chunks=(1,), dtype="f8")
    array[:] = 1.0
    assert array[:].sum() == 64


@pytest.fixture(scope="session")
def polars_is_awake() -> None:
    """Polars keeps threads and descriptors for good from the first source that it reads on: that is not this test's."""
    polars = pytest.importorskip("polars")
    source = importlib.import_module("polars.io.plugins").register_io_source
    frame = polars.DataFrame({"a": [1]})
    assert source(lambda *_: iter([frame]), schema=frame.schema).collect().height == 1
