"""A class that a worker cannot import goes there by value; one that it can import goes by its name."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest

import duodaq.ports
from duodaq.model import Execute, SetParameter
from duodaq.workers import _by_value
from duodaq.workers._by_value import can_be_imported, dumps

SOURCE = """
LIMIT = 3

def clipped(value):
    return min(value, LIMIT)

class Chopper:
    def get_rate(self):
        return clipped(12)
"""


@pytest.fixture
def by_path(tmp_path: Path) -> Iterator[ModuleType]:
    """A module loaded from a file that is on no path, as editors, notebooks and this test run do it."""
    file = tmp_path / "by_path_chopper.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("by_path_chopper", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["by_path_chopper"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["by_path_chopper"]
    if "by_path_chopper" in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(module)


def elsewhere(data: bytes, *expressions: str) -> str:
    """What these expressions of the value are in another process, a line each."""
    program = "import pickle, sys; value = pickle.load(sys.stdin.buffer)" + "".join(
        f"; print({e})" for e in expressions
    )
    ran = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True, timeout=60)
    return ran.stdout.decode().strip()


def test_a_class_from_a_file_works_in_another_process(by_path: ModuleType) -> None:
    assert not can_be_imported(by_path)
    assert elsewhere(dumps({"driver": by_path.Chopper}), "value['driver']().get_rate()") == "3"
    assert elsewhere(dumps(by_path.Chopper()), "value.get_rate()") == "3"
    assert elsewhere(dumps(by_path.clipped), "value(2)") == "2"


def test_a_class_that_becomes_importable_goes_by_its_name_from_then_on(
    by_path: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert b"get_rate" in dumps(by_path.Chopper)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert can_be_imported(by_path)
    assert b"get_rate" not in dumps(by_path.Chopper)
    assert pickle.loads(dumps(by_path.Chopper)) is by_path.Chopper


def test_another_file_of_the_same_name_is_not_taken_for_it(
    by_path: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "by_path_chopper.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    assert not can_be_imported(by_path)


@pytest.mark.parametrize(
    "name", ["sys", "math", "json.decoder", "os.path", "numpy", "numpy._core", "msgspec._core", "duodaq.ports._broker"]
)
def test_installed_modules_go_by_name(name: str) -> None:
    assert can_be_imported(importlib.import_module(name))


def test_what_is_installed_stays_small() -> None:
    assert len(dumps([duodaq.ports.Terminated, np.ndarray, Path, pickle.Unpickler])) < 500


STRUCTS = """
import msgspec

class Level(msgspec.Struct, frozen=True, tag="level"):
    x: float
    times: int = 2
    names: list[str] = msgspec.field(default_factory=list)
    def value(self):
        return self.times * self.x

class Twice(Level, frozen=True, kw_only=True):
    unit: str
    def __post_init__(self):
        if self.unit not in ("V", "mV"):
            raise ValueError(self.unit)
    def again(self):
        return Twice(self.x, unit=self.unit)
"""


def test_a_struct_of_a_notebook_keeps_its_fields_in_another_process() -> None:
    space = sys.modules["by_cell"] = ModuleType("by_cell")
    try:
        exec(STRUCTS, vars(space))
        data = dumps((space.Level, space.Twice))
    finally:
        del sys.modules["by_cell"]
    seen = {
        "(value[0](3.0).value(), value[0](3.0).names)": "(6.0, [])",
        "value[1](3.0, unit='V').again()": "Twice(x=3.0, times=2, names=[], unit='V')",
        "__import__('msgspec').json.encode(value[0](1.0, 3))": """b'{"type":"level","x":1.0,"times":3,"names":[]}'""",
        "(value[0](1.0) == value[0](1.0), hash(value[0](1.0, 1, ())) != 0)": "(True, True)",
        "issubclass(value[1], value[0])": "True",
    }
    assert elsewhere(data, *seen).splitlines() == list(seen.values())
    with pytest.raises(subprocess.CalledProcessError):
        elsewhere(data, "value[1](1.0, unit='A')")


class Own:
    """Nothing that a plain pickle may be asked for."""


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (("dmm", Execute("measure", (1, "V"), {"range": [0.5, None]}), 5.0), True),
        (SetParameter("name", b"x"), True),
        (Execute("measure", (Own,)), False),
        (Execute("measure", ({"a": {Own: 1}},)), False),
        ([1] * 65, False),
        (CIRCLE, False),
        (np.float64(1), False),
    ],
)
def test_only_what_holds_nothing_of_a_person_is_pickled_plainly(value: Any, plain: bool) -> None:
    assert _by_value.is_plain(value) is plain
    if plain:
        assert pickle.loads(dumps(value)) == value
    else:
        assert dumps(value)
