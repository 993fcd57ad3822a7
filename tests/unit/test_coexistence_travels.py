"""Every instrument of the twelve coexistence tests can be sent to a process that knows nothing but duodaq."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from duodaq.dual import DualRuntimeManager
from duodaq.model import InstrumentDefinition
from duodaq.testing import LeakWatch
from duodaq.testing.coexistence import MODES, TWELVE, Bench, imitating, mode_named
from duodaq.testing.coexistence._state import late_instruments
from duodaq.testing.coexistence._within import make_v2, make_v4

ALL_MODES = (*MODES, mode_named("process"), mode_named("process+inline"))

CHILD = """
import asyncio, inspect, json, sys, cloudpickle
from types import SimpleNamespace
from duodaq.bridge import ParameterTable
from duodaq.dual import RuntimeParts
from duodaq.ports import Broker
from duodaq.v2 import DataDistributor
from duodaq.v2.families import load_driver
from duodaq.v4 import DataPublisher
from duodaq.v4._drivers import actor_kind
from duodaq.v4.instruments import InstrumentContext

def construct(one, parts):
    line = SimpleNamespace(write=len, readline=lambda: b"1\\n", codec=None)
    if one.runtime == "v4":
        return actor_kind(one)(InstrumentContext(one, line, parts.v4_data, parts.parameters))
    driver = load_driver(one)
    own = {"serial": line} if "serial" in inspect.signature(driver).parameters else {}
    return driver(**one.args, **own)

async def main():
    definitions, factories = cloudpickle.loads(sys.stdin.buffer.read())
    parts = RuntimeParts(Broker(), ParameterTable(), DataDistributor(), DataPublisher())
    runtimes = [type(make(parts)).__name__ for make in factories]
    made = [f"{where}: {type(construct(one, parts)).__name__}" for where, one in definitions]
    print(json.dumps([runtimes, made]))

asyncio.run(main())
"""


class _CollectedError(Exception):
    """The instruments of a test are known; there is no need to run it."""


class CollectingBench(Bench):
    """A bench on which nothing is started: a test gets as far as its manager, whose instruments are kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.collected: list[InstrumentDefinition] = []

    async def table(self) -> Any:
        return SimpleNamespace(set_shutter=lambda is_open: None)

    async def simulator(self, name: str, **options: Any) -> Any:
        return SimpleNamespace(address="/dev/null")

    def manager(self, instruments: Iterable[InstrumentDefinition], *args: Any, **kwargs: Any) -> DualRuntimeManager:
        self.collected.extend(instruments)
        raise _CollectedError


async def collected_from(test: Any, mode: Any) -> list[tuple[str, InstrumentDefinition]]:
    async with CollectingBench(mode) as bench:
        with pytest.raises(_CollectedError):
            await test(bench)
        if test.__name__ == "test_state_synchronization":
            bench.collected += late_instruments(bench, bench.evidence("late"), [])
        return [(f"{test.__name__} {one.id}", one) for one in bench.collected]


@pytest.fixture(scope="module")
def definitions() -> list[tuple[str, InstrumentDefinition]]:
    async def collect() -> list[tuple[str, InstrumentDefinition]]:
        found = [await collected_from(test, mode) for test in TWELVE for mode in ALL_MODES]
        return [one for of_one in found for one in of_one]

    LeakWatch()  # has libraries open now, outside any loop, what they open once and never close
    return asyncio.run(collect())


def test_each_class_is_one_of_a_module(definitions: list[tuple[str, InstrumentDefinition]]) -> None:
    drivers = [one.driver for _, one in definitions if not isinstance(one.driver, str)]
    assert len({test.split()[0] for test, _ in definitions}) == 12
    assert [d for d in drivers if "<locals>" in d.__qualname__ or not d.__module__.startswith("duodaq.")] == []


def test_a_definition_is_the_same_after_its_travel(definitions: list[tuple[str, InstrumentDefinition]]) -> None:
    assert pickle.loads(cloudpickle.dumps(definitions)) == definitions


def test_each_is_constructed_in_a_fresh_interpreter(definitions: list[tuple[str, InstrumentDefinition]]) -> None:
    factories = (make_v2, make_v4, imitating("v2").v2, imitating("v4").v4)
    parcel = cloudpickle.dumps((definitions, factories))
    ended = subprocess.run([sys.executable, "-c", CHILD], input=parcel, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    runtimes, made = json.loads(ended.stdout)
    assert runtimes == ["V2Runtime", "V4Runtime", "FlagAndQueue", "FlagAndQueue"]
    expected = [f"{where}: {name(one.driver)}" for where, one in definitions]
    assert made == expected


def name(driver: Any) -> str:
    return driver.rpartition(":")[2] if isinstance(driver, str) else driver.__name__
