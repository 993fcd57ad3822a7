"""Runs one coexistence test by itself, sabotaged or with an imitation if asked, and prints the verdict as one line.

    python -m duodaq.testing.coexistence TEST [--mode MODE] [--sabotage NAME] [--imitate v2|v4]

MODE is a kind of worker for both runtimes (inline, thread, process), or one for each (thread+inline: V2 in a thread, V4
inline). A sabotage is applied here and in every worker process that is made.

The verdict is JSON: {"test", "mode", "passed", "feature", "error"}; exit code 0 if it passed, 1 if it failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import traceback

from duodaq.testing import LeakWatch, coexistence
from duodaq.testing.coexistence._bench import Bench, mode_named
from duodaq.testing.coexistence._imitation import imitating
from duodaq.testing.coexistence._proof import FeatureFailure
from duodaq.testing.coexistence._sabotage import SABOTAGES, load_sabotages, sabotage_everything

LIMIT_S = 60.0


async def _run(test: str, mode: str, imitate: str | None) -> None:
    async with asyncio.timeout(LIMIT_S), Bench(mode_named(mode), imitating(imitate)) as bench:
        await getattr(coexistence, test)(bench)


def main() -> None:
    load_sabotages()
    parser = argparse.ArgumentParser(prog="python -m duodaq.testing.coexistence")
    parser.add_argument("test", choices=[t.__name__ for t in coexistence.TWELVE])
    parser.add_argument("--mode", default="inline")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGES))
    parser.add_argument("--imitate", choices=["v2", "v4"])
    given = parser.parse_args()
    if given.sabotage:
        sabotage_everything(given.sabotage)
    LeakWatch()  # has libraries open now, outside any loop, what they open once and never close
    verdict: dict[str, object] = {"test": given.test, "mode": given.mode, "passed": True, "feature": "", "error": ""}
    try:
        asyncio.run(_run(given.test, given.mode, given.imitate))
    except FeatureFailure as failure:
        verdict |= {"passed": False, "feature": failure.feature, "error": str(failure)}
    except BaseException as error:  # noqa: BLE001 - the verdict says which, and it is not the marked assertion
        traceback.print_exc()
        verdict |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(verdict) + "\n")
    sys.stdout.flush()
    os._exit(0 if verdict["passed"] else 1)  # a sabotaged product may leave threads that never return


if __name__ == "__main__":
    main()
