"""Lab files as editors, other systems and slips make them: read as they are meant, or refused with a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

LAB = """\
[ports.line]
serial = { path = "/dev/ttyUSB0", baud = 9600 }
idle_ms = 20

[instruments.chopper]
runtime = "v2"
driver = "./chopper.py:Chopper"
port = "line"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "drivers").mkdir()
    for folder in (tmp_path, tmp_path / "drivers"):
        (folder / "chopper.py").write_text("class Chopper:\n    def __getattr__(self, name): ...\n")
    return tmp_path / "lab.toml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_lab(file)
    return str(caught.value).removeprefix(f"{file}:")


def test_a_byte_order_mark_before_the_text_is_nothing(file: Path) -> None:
    file.write_text(LAB, encoding="utf-8-sig")
    assert [i.id for i in load_lab(file).instruments] == ["chopper"]
    file.write_text(LAB.replace("baud", "boud"), encoding="utf-8-sig")
    with pytest.raises(ConfigError, match=r":2: ports\.line\.serial\.boud"):
        load_lab(file)


@pytest.mark.parametrize(
    "place", ["drivers/chopper", "../drivers/chopper", "/opt/lab/chopper", "./chopper", "..chopper"]
)
def test_a_path_without_py_is_answered_with_the_same_path_with_it(file: Path, place: str) -> None:
    said = refusal(file, LAB.replace("./chopper.py", place))
    assert said.startswith("7: instruments.chopper.driver: ")
    assert "pip install" not in said
    assert ":Chopper" in said
    if "/" in place:
        assert f'"{place}.py:Chopper"' in said


def test_a_path_too_long_for_any_file_is_refused(file: Path) -> None:
    said = refusal(file, LAB.replace("./chopper", "./" + "chopper" * 999))
    assert said.startswith("7: instruments.chopper.driver: there is no file ./chopper")


@pytest.mark.parametrize("name", ["class", "None", "import"])
def test_a_word_of_python_names_no_instrument(file: Path, name: str) -> None:
    said = refusal(file, LAB.replace("[instruments.chopper]", f"[instruments.{name}]"))
    assert said.startswith(f'5: instruments.{name}: "{name}" cannot be written as lab.{name}')
    assert said.endswith(f"such as {name}_")


def test_what_is_nested_beyond_all_measure_is_refused(file: Path) -> None:
    assert "is nested too deeply" in refusal(file, LAB + "args.x = " + "[" * 3000 + "]" * 3000 + "\n")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("9600", "99999999999999", "2: ports.line.serial.baud: must be less than or equal to 100000000"),
        ('"/dev/ttyUSB0"', '""', '2: ports.line.serial.path: is empty; write for example path = "/dev/ttyUSB0"'),
    ],
)
def test_a_line_that_cannot_be_is_refused(file: Path, right: str, wrong: str, said: str) -> None:
    assert refusal(file, LAB.replace(right, wrong)) == said
