"""Each sabotage is caught at the assertion marked for its feature, and no imitation of a runtime passes any test.

Everything runs in processes of its own, two at a time: a sabotage cannot be taken back. Where tests run side by side,
each worker runs what it needs, one at a time. What runs every time is a choice, in which each test meets each mode; the
whole matrix is one of the long counts.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from duodaq.testing.coexistence import MODES, SABOTAGES, TWELVE, load_sabotages

load_sabotages()

pytestmark = pytest.mark.timeout(1200)  # the first test waits for the verdicts of all
AT_ONCE = 2
NAMES = tuple(test.__name__ for test in TWELVE)
EVERY_MODE = tuple(mode.name for mode in MODES)
IMITATED_IN = "inline"

QUICK: dict[str, tuple[str, str, str]] = {
    "test_dual_runtime_startup_shutdown": ("driver_threads_stay", "v2_stops_before_v4", "ports_close_first"),
    "test_shutdown_timeout_enforcement": ("v2_calls_everything_clean", "one_refusal_condemns_all", "ports_stay_locked"),
    "test_v2_and_v4_actors_concurrent": ("commands_take_turns", "sessions_answer_themselves", "answers_go_astray"),
    "test_data_flow_v2_to_v4": (
        "channels_are_renamed_on_the_bridge",
        "units_get_lost_on_the_bridge",
        "readings_are_numbered_by_batch",
    ),
    "test_data_flow_v4_to_v2": (
        "frames_are_copied_on_the_bridge",
        "positions_get_the_time_of_the_bridge",
        "positions_are_rounded",
    ),
    "test_v2_error_does_not_crash_v4": (
        "hung_drivers_keep_their_handles",
        "a_batch_now_and_then_is_forgotten",
        "dead_workers_are_not_replaced",
    ),
    "test_v4_error_does_not_crash_v2": (
        "a_reading_now_and_then_is_forgotten",
        "restarts_never_end",
        "crashed_actors_stay_down",
    ),
    "test_concurrent_message_throughput": (
        "v2_does_some_twice",
        "v2_answers_with_the_last_reply",
        "queues_have_no_end",
    ),
    "test_resource_contention": (
        "the_broker_asks_in_between",
        "replies_are_mixed_up",
        "some_questions_are_answered_from_memory",
    ),
    "test_graceful_shutdown_with_active_ops": (
        "the_last_batch_stays_behind",
        "work_is_taken_to_the_last",
        "what_waits_is_forgotten",
    ),
    "test_bidirectional_communication_channel": (
        "the_newest_is_dropped",
        "readings_are_delivered_backwards",
        "full_queues_take_one_more",
    ),
    "test_state_synchronization": (
        "the_table_has_what_was_asked_for",
        "v2_settings_show_late",
        "late_joiners_get_only_what_changes",
    ),
}
"""The sabotages that are tried every time: one inline, one in threads, one in processes; by measurement the quickest
three of their test, as far as each is proven in the mode where it stands.
"""

CHOSEN = tuple(pair for names in QUICK.values() for pair in zip(names, EVERY_MODE, strict=True))
MATRIX = tuple((name, mode) for name, one in sorted(SABOTAGES.items()) for mode in one.modes)
IMITATIONS = tuple((name, runtime, IMITATED_IN) for name in NAMES for runtime in ("v2", "v4"))
ALL_IMITATIONS = tuple((name, runtime, mode) for name, runtime, _ in IMITATIONS for mode in EVERY_MODE)


def arguments_of(sabotage: str, mode: str) -> tuple[str, ...]:
    return (SABOTAGES[sabotage].test, "--mode", mode, "--sabotage", sabotage)


def imitation_of(name: str, runtime: str, mode: str) -> tuple[str, ...]:
    return (name, "--mode", mode, "--imitate", runtime)


class Judge:
    """A program that judges one after the other, each in a process of its own; see `verdicts.py`."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("verdicts.py"))]
        self._program = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def verdict(self, arguments: tuple[str, ...]) -> dict[str, Any]:
        """The verdict as ``python -m duodaq.testing.coexistence`` says it; what was said on stderr stands beside it."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(arguments) + "\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        assert answer, "the judge is gone"
        out, err = json.loads(answer)
        lines = out.splitlines()
        if not lines:
            return {"passed": None, "feature": "", "error": "no verdict", "stderr": err[-2000:]}
        return {**json.loads(lines[-1]), "stderr": err[-2000:]}

    def close(self) -> None:
        self._program.communicate()


@pytest.fixture(scope="module")
def verdict_on(request: pytest.FixtureRequest) -> Iterator[Callable[[tuple[str, ...]], dict[str, Any]]]:
    """Every verdict that the chosen tests need; with pytest-xdist, one when it is asked for."""
    if hasattr(request.config, "workerinput"):
        with closing(Judge()) as judge:
            yield judge.verdict
        return
    wanted: dict[tuple[str, ...], None] = {}
    for item in request.session.items:
        given = item.callspec.params if item.path == request.path and hasattr(item, "callspec") else {}
        if "sabotage" in given:
            wanted[arguments_of(given["sabotage"], given["mode"])] = None
        elif "runtime" in given:
            wanted[imitation_of(given["name"], given["runtime"], given["mode"])] = None
    free: queue.SimpleQueue[Judge] = queue.SimpleQueue()

    def verdict(arguments: tuple[str, ...]) -> dict[str, Any]:
        judge = free.get()
        try:
            return judge.verdict(arguments)
        finally:
            free.put(judge)

    with ExitStack() as judges, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            free.put(judges.enter_context(closing(Judge())))
        yield dict(zip(wanted, pool.map(verdict, wanted), strict=True)).__getitem__


def test_one_verdict_is_said_by_the_documented_command_too() -> None:
    (name, where), *_ = CHOSEN
    command = [sys.executable, "-m", "duodaq.testing.coexistence", *arguments_of(name, where)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    bites({**json.loads(ended.stdout.splitlines()[-1]), "stderr": ended.stderr[-2000:]}, name)


def bites(seen: dict[str, Any], sabotage: str) -> None:
    """Only a failure at the assertion marked for its feature counts."""
    assert (seen["passed"], seen["feature"]) == (False, SABOTAGES[sabotage].feature), seen


def fails(seen: dict[str, Any]) -> None:
    """An imitation fails, and at a feature."""
    assert seen["passed"] is False, seen
    assert seen["feature"], seen


@pytest.mark.parametrize(("sabotage", "mode"), CHOSEN)
def test_a_sabotage_is_caught_at_its_feature(sabotage: str, mode: str, verdict_on: Any) -> None:
    bites(verdict_on(arguments_of(sabotage, mode)), sabotage)


@pytest.mark.parametrize(("name", "runtime", "mode"), IMITATIONS)
def test_an_imitation_of_a_runtime_fails_at_a_feature(name: str, runtime: str, mode: str, verdict_on: Any) -> None:
    fails(verdict_on(imitation_of(name, runtime, mode)))


@pytest.mark.soak
@pytest.mark.parametrize(("sabotage", "mode"), MATRIX)
def test_every_sabotage_is_caught_in_every_mode_that_it_is_declared_for(
    sabotage: str, mode: str, verdict_on: Any
) -> None:
    bites(verdict_on(arguments_of(sabotage, mode)), sabotage)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "runtime", "mode"), ALL_IMITATIONS)
def test_every_imitation_fails_at_a_feature_in_every_mode(name: str, runtime: str, mode: str, verdict_on: Any) -> None:
    fails(verdict_on(imitation_of(name, runtime, mode)))


@pytest.mark.parametrize("where", EVERY_MODE)
def test_there_are_twelve_each_with_three_sabotages_or_more_in_every_mode(where: str) -> None:
    counts = {name: sum(s.test == name and where in s.modes for s in SABOTAGES.values()) for name in NAMES}
    assert len(NAMES) == len(set(NAMES)) == 12
    assert {name: count for name, count in counts.items() if count < 3} == {}
    assert {s.test for s in SABOTAGES.values()} <= set(NAMES)
    assert {mode for s in SABOTAGES.values() for mode in s.modes} == set(EVERY_MODE)


def test_what_is_tried_every_time_is_three_of_each_test_one_in_each_mode() -> None:
    assert set(QUICK) == set(NAMES)
    for name, chosen in QUICK.items():
        assert len(set(chosen)) == 3, name
        assert [SABOTAGES[one].test for one in chosen] == [name] * 3
        assert [mode in SABOTAGES[one].modes for one, mode in zip(chosen, EVERY_MODE, strict=True)] == [True] * 3, name
