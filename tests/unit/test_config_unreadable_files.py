"""A lab file that is not there, or cannot be read, is answered with where it was looked for and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

LAB = """\
[ports.line]
serial = { path = "/dev/ttyUSB0", baud = 9600 }
idle_ms = 20
"""


def refusal(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_lab(file)
    return str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    assert refusal(tmp_path / "lba.toml") == (
        f"{tmp_path}/lba.toml: there is no such file. Did you mean {tmp_path}/lab.toml?"
    )
    assert refusal(tmp_path / "optics") == f"{tmp_path}/optics: there is no such file. In {tmp_path} there is: lab.toml"


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    assert refusal(tmp_path) == f"{tmp_path}: is a folder. Did you mean {tmp_path}/lab.toml?"


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a" / "lab.toml").endswith(f"there is no such file. There is no folder {tmp_path}/a")


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_bytes(b'[lab]\nname = "caf\xe9"\n')
    assert refusal(tmp_path / "lab.toml") == f"{tmp_path}/lab.toml:2: is not UTF-8 text. Save it as UTF-8"


def test_file_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal(tmp_path / "lab.toml") == (
        f"{tmp_path}/lab.toml: cannot be read: permission denied. Check who may read it (ls -l)"
    )
