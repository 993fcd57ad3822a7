"""What tests share: a lab file without a mistake, with the drivers that it names; and a lab of one dial, in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.dial_line import DialLine

from duodaq.app import Lab
from duodaq.config import load_lab
from duodaq.errors import ConfigError
from duodaq.model import InstrumentDefinition, LabDefinition, PollDefinition, PortDefinition, RuntimeDefinition

LAB = """\
[ports.stage]
serial = { path = "/dev/ttyUSB0", baud = 19200, rtscts = true }
codec = "esp300"

[ports.dmm]
visa = "TCPIP0::127.0.0.1::5025::SOCKET"
codec = "scpi"

[instruments.dmm]
runtime = "v2"
driver = "drivers.meters:HP34401A"
port = "dmm"
settings = ["function_", "nplc"]
deadline = { default = "5 s", reading = "30 s" }
poll.voltage = { read = "reading", unit = "V", every = "1 s" }

[instruments.chopper]
runtime = "v2"
driver = "./chopper.py:Chopper"
args = { device = "/dev/ttyUSB3" }
poll.rate = { call = "get_rate", unit = "Hz", every = "500 ms" }

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
safe = { shutdown = "stop", crash = "stop" }
"""


@pytest.fixture
def lab_text() -> str:
    """A lab file without a mistake."""
    return LAB


@pytest.fixture
def lab_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the drivers that it names, of which none may be executed."""
    (tmp_path / "chopper.py").write_text(
        "class Chopper:\n    get_rate = park = None\n\n\nraise SystemExit('executed')\n"
    )
    (tmp_path / "broken.py").write_text("class Chopper(:\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    (tmp_path / "path" / "drivers").mkdir(parents=True)
    (tmp_path / "path" / "drivers" / "__init__.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / "path" / "drivers" / "meters.py").write_text(
        "import numpy as np\ntry:\n    from pathlib import Path\nexcept ImportError:\n    Path = None\n"
        "class HP34401A: ...\nOld: type = HP34401A\n_hidden = 1\nraise SystemExit('executed')\n"
    )
    return tmp_path


@pytest.fixture
def refusal() -> Callable[[Path], str]:
    """What is said of a lab file that is refused."""

    def said_of(file: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_lab(file)
        return str(caught.value)

    return said_of


@pytest.fixture
def sentence(lab_folder: Path, refusal: Callable[[Path], str]) -> Callable[[str, str], str]:
    """What is said, behind the file's name, when something of the lab file is replaced by something else."""

    def said_with(right: str, wrong: str) -> str:
        assert LAB.count(right) >= 1
        before, _, after = LAB.rpartition(right) if right in ('runtime = "v4"', '"v4"') else LAB.partition(right)
        file = lab_folder / "lab.toml"
        file.write_text(before + wrong + after)
        return refusal(file).removeprefix(f"{file}:")

    return said_with


class Dial:
    """A driver of the test's own."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def angle(self) -> float:
        self.serial.write(b"A?\n")
        return float(self.serial.readline())

    def break_down(self) -> None:
        raise ArithmeticError("broken")


@pytest.fixture
def dial_lab() -> Callable[..., Lab]:
    """Makes a lab of one dial that is read a hundred times a second, not yet started."""

    def make(every_s: float = 0.01, worker: str = "inline", driver: Any = Dial, **facts: Any) -> Lab:
        poll = PollDefinition("angle", every_s, "deg", call="angle")
        definition = LabDefinition(
            'the "lab"\\',
            ports=(PortDefinition("line", serial={"path": "nowhere"}, idle_ms=1),),
            instruments=(InstrumentDefinition("dial", "v2", driver, port="line", polls=(poll,), passive=True),),
            v2=RuntimeDefinition("v2", worker),
            **facts,
        )
        return Lab(definition, transports={"line": DialLine()})

    return make
