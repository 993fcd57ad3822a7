"""What a lab file names in a driver class of one's own has to be there, as far as its file tells without being run."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

LAB = """
[lab]
name = "own"

[instruments.dial]
runtime = "v2"
driver = "./drivers.py:Dial"
"""
DRIVER = """
raise SystemExit("a check runs no driver")


class Base:
    limit = 3.0

    def __init__(self, line):
        self.line = line
        self.offset, self.gain = 0.0, 1.0

    def close(self):
        self.open: bool = False


class Dial(Base):
    @property
    def angle(self):
        return 1.0

    def read(self):
        return 2.0
"""


def loaded(folder: Path, stanza: str, driver: str = DRIVER) -> None:
    (folder / "drivers.py").write_text(driver)
    (folder / "lab.toml").write_text(LAB + stanza)
    load_lab(folder / "lab.toml")


@pytest.mark.parametrize(
    "stanza",
    [
        *(f'poll.x = {{ read = "{name}", every = "1 s" }}' for name in ("angle", "limit", "gain", "open", "line.baud")),
        'poll.x = { call = "read", every = "1 s" }',
        'safe.shutdown = { call = "close" }',
        'settings = ["gain", "line.baud"]',
        "settings = { gain = 2.0 }\nlimits.gain = [0, 5]",
        'passive = ["read", "gain"]',
        'poll.x = { call = "read", every = "1 s" }\ndeadline = { default = "5 s", x = "9 s", connect = "9 s" }',
        'deadline = { read = "9 s", angle = "9 s" }',
    ],
)
def test_what_a_class_or_its_bases_have_is_found(tmp_path: Path, stanza: str) -> None:
    loaded(tmp_path, stanza)


@pytest.mark.parametrize(
    ("stanza", "said"),
    [
        (
            'poll.x = { read = "angel", every = "1 s" }',
            r'8: instruments\.dial\.poll\.x\.read: .*has no "angel".*"angle"',
        ),
        ('poll.x = { call = "raed", every = "1 s" }', r'8: instruments\.dial\.poll\.x\.call: .*has no "raed".*"read"'),
        ('safe.crash = { call = "shut" }', r'8: instruments\.dial\.safe\.crash\.call: .*has no "shut".* It has: angle'),
        ('settings = ["offset", "gian"]', r'8: instruments\.dial\.settings: .*has no "gian".*"gain"'),
        ("settings = { gian = 2.0 }", r'8: instruments\.dial\.settings\.gian: .*has no "gian".*"gain"'),
        ("limits.gian = [0, 5]", r'8: instruments\.dial\.limits\.gian: .*has no "gian".*"gain"'),
        ('passive = ["raed"]', r'8: instruments\.dial\.passive: .*has no "raed".*"read"'),
        ('deadline = { raed = "9 s" }', r'8: instruments\.dial\.deadline\.raed: .*has no "raed".*"read"'),
    ],
)
def test_what_it_has_not_is_said_with_its_line_and_what_was_meant(tmp_path: Path, stanza: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, stanza)


@pytest.mark.parametrize(
    "driver",
    [
        "from elsewhere import Base\nclass Dial(Base):\n    pass\n",
        "import elsewhere\nclass Dial(elsewhere.Base):\n    pass\n",
        "from elsewhere import *\nclass Dial:\n    pass\n",
        "class Dial(metaclass=type):\n    pass\n",
        "@print\nclass Dial:\n    pass\n",
        "class Dial:\n    def __getattr__(self, name):\n        return print\n",
        "class Dial:\n    def __init__(self):\n        setattr(self, 'x', 1)\n",
        "class Dial:\n    def __init__(self):\n        self.__dict__.update(x=1)\n",
        "class Base:\n    def __init__(self):\n        vars(self)['x'] = 1\nclass Dial(Base):\n    pass\n",
        "class Dial:\n    pass\nDial = print(Dial)\n",
        "if True:\n    class Dial:\n        pass\n",
        "class Dial(Dial):\n    pass\n",
        "class Base:\n    pass\nif True:\n    class Base:\n        x = 1\nclass Dial(Base):\n    pass\n",
    ],
)
def test_where_only_running_it_could_tell_nothing_is_said(tmp_path: Path, driver: str) -> None:
    loaded(tmp_path, 'poll.x = { call = "anything", every = "1 s" }', driver)


def test_classes_in_a_circle_end(tmp_path: Path) -> None:
    loaded(tmp_path, 'poll.x = { read = "x", every = "1 s" }', "class A(Dial):\n    pass\nclass Dial(A):\n    pass\n")
