"""Runs coexistence tests one after the other in this process, for a program that reads the verdicts as they come.

    python -m duodaq.testing.coexistence._suite --mode MODE [--tests A,B] [--sabotage NAME]
    python -m duodaq.testing.coexistence._suite --inventory | --takeover ROUNDS

What it says is JSON, one line each, on what was its stdout: ``{"begins"}``, then ``{"test", "mode", "state",
"duration_s", "feature", "error", "features", "figures"}``; ``{"index"}`` of an inventory; ``{"takeover"}``. Whatever
else is printed here goes to stderr.

Rules for whoever edits this:

* It ends behind the first test that fails: what a failed test has left would be blamed on the next one. Whoever reads
  begins anew with those that are left.
* It ends when its stdin does: nothing is left behind by a reader that was killed. Every process below it does the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from duodaq.clock import block, monotonic_s
from duodaq.testing import LeakWatch, coexistence
from duodaq.testing.coexistence._bench import Bench, mode_named
from duodaq.testing.coexistence._figures import Figures
from duodaq.testing.coexistence._proof import FeatureFailure
from duodaq.testing.coexistence._sabotage import SABOTAGES, load_sabotages, sabotage_everything
from duodaq.testing.coexistence._takeover import measure_takeover
from duodaq.testing.coexistence._twelve import CATEGORIES, TWELVE

LIMIT_S = 60.0
"""How long one test may take."""
ENDS_S = 10.0
"""How long what is under way may take to end once nobody reads any more."""
INTERRUPTED = 130


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m duodaq.testing.coexistence._suite")
    parser.add_argument("--mode", default="inline")
    parser.add_argument("--tests", default=",".join(test.__name__ for test in TWELVE))
    parser.add_argument("--sabotage", default="")
    parser.add_argument("--inventory", action="store_true")
    parser.add_argument("--takeover", type=int, default=0)
    given = parser.parse_args()
    say = _Line()
    _end_with_stdin()
    code = INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):
        code = _carry_out(given, say)
    _leave(code)


def _carry_out(given: argparse.Namespace, say: _Line) -> int:
    if given.inventory:
        say({"index": inventory()})
        return 0
    if given.sabotage:
        load_sabotages()
        sabotage_everything(given.sabotage)
    LeakWatch()  # has libraries open now, outside any loop, what they open once and never close
    if given.takeover:
        say({"takeover": asyncio.run(measure_takeover(given.takeover))})
        return 0
    return run_tests(given.tests.split(","), given.mode, say)


def run_tests(names: Iterable[str], mode: str, say: _Line) -> int:
    """Run them in this order, as far as the first that fails; the exit code: 1 if one did."""
    for name in names:
        say({"begins": name})
        verdict = _verdict(name, mode)
        say(verdict)
        if verdict["state"] != "passed":
            return 1
    return 0


def _verdict(name: str, mode: str) -> dict[str, Any]:
    figures, watch = Figures(), LeakWatch()
    verdict: dict[str, Any] = {"test": name, "mode": mode, "state": "passed", "feature": "", "error": ""}
    began_s = monotonic_s()
    proven: dict[str, int] = {}
    with watch.over_runners():
        try:
            asyncio.run(_one(name, mode, figures, proven))
        except FeatureFailure as failure:
            verdict |= {"state": "failed", "feature": failure.feature, "error": str(failure)}
        except Exception as error:  # noqa: BLE001 - the verdict says which
            traceback.print_exc()
            verdict |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}
    took_s = monotonic_s() - began_s
    if verdict["state"] == "passed" and (left := watch.leaks()):
        verdict |= {"state": "failed", "feature": "nothing is left", "error": "left behind: " + "; ".join(left)}
    return {**verdict, "duration_s": took_s, "features": list(proven), "figures": figures.measured}


async def _one(name: str, mode: str, figures: Figures, proven: dict[str, int]) -> None:
    async with asyncio.timeout(LIMIT_S), Bench(mode_named(mode), figures=figures, proven=proven) as bench:
        await getattr(coexistence, name)(bench)


def inventory() -> list[dict[str, Any]]:
    """The twelve: what each is about and must show, where it is, and what is broken on purpose to see it fail."""
    load_sabotages()
    return [
        {
            "test": test.__name__,
            "category": category,
            "shows": " ".join((inspect.getdoc(test) or "").split()),
            "module": test.__module__,
            "lines": len(Path(inspect.getfile(test)).read_text(encoding="utf-8").splitlines()),
            "sabotages": [
                {"name": s.name, "feature": s.feature, "words": _words(s.apply), "modes": s.modes}
                for s in SABOTAGES.values()
                if s.test == test.__name__
            ],
        }
        for category, tests in CATEGORIES.items()
        for test in tests
    ]


def _words(of: Any) -> str:
    return " ".join((inspect.getdoc(of) or "").split())


class _Line:
    """Where the verdicts go: what was stdout. From now on stdout is stderr, for whatever else prints."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.set_inheritable(self._fd, False)
        os.dup2(2, 1)

    def __call__(self, said: dict[str, Any]) -> None:
        os.write(self._fd, msgspec.json.encode(said) + b"\n")


def _end_with_stdin() -> None:
    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGINT)
        block(ENDS_S)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, name="duodaq-suite-reader", daemon=True).start()


def _leave(code: int) -> None:
    """End now: what has failed may have left threads that never return. What was measured of coverage is kept."""
    measuring: Any = sys.modules.get("coverage")
    if measuring is not None and (current := measuring.Coverage.current()) is not None:
        current.stop()
        current.save()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
