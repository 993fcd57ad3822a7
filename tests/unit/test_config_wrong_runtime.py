"""A driver in the runtime that cannot host it is found in the file, without executing a line of the driver."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

EXECUTED = "raise SystemExit('executed')\n"


def load(folder: Path, driver: str, runtime: str = "v4", code: str = "") -> None:
    (folder / "own.py").write_text(EXECUTED + code)
    (folder / "lab.toml").write_text(f'[instruments.dmm]\nruntime = "{runtime}"\ndriver = "{driver}"\n')
    load_lab(folder / "lab.toml")


@pytest.mark.parametrize(
    ("driver", "code"),
    [
        ("pymeasure.instruments.hp:HP34401A", ""),
        ("./own.py:Own", "class Own:\n    pass\n"),
        ("./own.py:Own", "class Root(object):\n    pass\nclass Own(Root):\n    pass\n"),
        ("./own.py:Own", "from pymeasure.instruments import Instrument as I\nclass Own(I):\n    pass\n"),
        ("./own.py:Own", "def Own():\n    pass\n"),
        ("duodaq.cli.demo.shutter:Shutter", ""),
    ],
)
def test_a_blocking_driver_in_v4_is_named_with_its_line_and_the_right_runtime(
    driver: str, code: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="v4 hosts actors only") as caught:
        load(tmp_path, driver, code=code)
    error = caught.value
    assert (error.file, error.line, error.key) == (str(tmp_path / "lab.toml"), 3, "instruments.dmm.driver")
    assert error.remedy == 'Write runtime = "v2"'
    load(tmp_path, driver, "v2", code)


@pytest.mark.parametrize(
    "code",
    [
        "from duodaq.v4.instruments import InstrumentActor\nclass Own(InstrumentActor):\n    pass\n",
        "from duodaq.v4 import instruments\nclass Own(instruments.InstrumentActor):\n    pass\n",
        "from duodaq.v4.instruments import ScpiActor as A\nclass M: ...\nclass N(A): ...\nclass Own(M, N): ...\n",
        "from elsewhere import Thing\nclass Own(Thing):\n    pass\n",
        "from elsewhere import *\nclass Own(Thing):\n    pass\n",
        "class Own:\n    pass\nOwn = object()\n",
        "class Own(Own):\n    pass\n",
        "class A(B):\n    pass\nclass B(A):\n    pass\nclass Own(A):\n    pass\n",
        "Own = make()\n",
    ],
)
def test_what_is_an_actor_or_might_be_one_passes(code: str, tmp_path: Path) -> None:
    load(tmp_path, "./own.py:Own", code=code)


def test_the_actor_of_the_examples_passes(tmp_path: Path) -> None:
    code = (Path(__file__).parents[2] / "examples" / "own_actor.py").read_text()
    actors = [n.name for n in ast.parse(code).body if isinstance(n, ast.ClassDef) and n.bases]
    load(tmp_path, f"./own.py:{actors[-1]}", code=code.replace("from __future__ import annotations\n", ""))
