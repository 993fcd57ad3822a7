"""Each sabotage is caught at the assertion marked for its feature, and no imitation of a runtime passes any test.

Everything runs in processes of its own, two at a time: a sabotage cannot be taken back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from duodaq.testing.coexistence import SABOTAGES, TWELVE, load_sabotages

load_sabotages()

pytestmark = pytest.mark.timeout(1200)  # the first test waits for the verdicts of all
AT_ONCE = 2
LIMIT_S = 120.0
NAMES = tuple(test.__name__ for test in TWELVE)
IMITATIONS = tuple((name, runtime) for name in NAMES for runtime in ("v2", "v4"))


def arguments_of(sabotage: str) -> tuple[str, ...]:
    chosen = SABOTAGES[sabotage]
    return (chosen.test, "--mode", chosen.mode, "--sabotage", sabotage)


def imitation_of(name: str, runtime: str) -> tuple[str, ...]:
    return (name, "--imitate", runtime)


def verdict(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What ``python -m duodaq.testing.coexistence`` says; what it said on stderr stands beside it."""
    command = [sys.executable, "-m", "duodaq.testing.coexistence", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    lines = ended.stdout.splitlines()
    if not lines:
        return {"passed": None, "feature": "", "error": "no verdict", "stderr": ended.stderr[-2000:]}
    return {**json.loads(lines[-1]), "stderr": ended.stderr[-2000:]}


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every verdict that the chosen tests need."""
    wanted: dict[tuple[str, ...], None] = {}
    for item in request.session.items:
        given = item.callspec.params if item.path == request.path and hasattr(item, "callspec") else {}
        if "sabotage" in given:
            wanted[arguments_of(given["sabotage"])] = None
        elif "runtime" in given:
            wanted[imitation_of(given["name"], given["runtime"])] = None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(verdict, wanted), strict=True))


@pytest.mark.parametrize("sabotage", sorted(SABOTAGES))
def test_a_sabotage_is_caught_at_its_feature(sabotage: str, verdicts: Any) -> None:
    seen = verdicts[arguments_of(sabotage)]
    assert (seen["passed"], seen["feature"]) == (False, SABOTAGES[sabotage].feature), seen


@pytest.mark.parametrize(("name", "runtime"), IMITATIONS)
def test_an_imitation_of_a_runtime_fails_at_a_feature(name: str, runtime: str, verdicts: Any) -> None:
    seen = verdicts[imitation_of(name, runtime)]
    assert seen["passed"] is False, seen
    assert seen["feature"], seen


def test_there_are_twelve_each_with_three_sabotages_or_more() -> None:
    counts = {name: sum(s.test == name for s in SABOTAGES.values()) for name in NAMES}
    assert len(NAMES) == len(set(NAMES)) == 12
    assert {name: count for name, count in counts.items() if count < 3} == {}
    assert {s.test for s in SABOTAGES.values()} <= set(NAMES)
