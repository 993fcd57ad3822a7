"""A key that would do nothing is refused, for whoever wrote it expects that it does something."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

INSTRUMENT = '[instruments.i]\nruntime = "v2"\ndriver = "./d.py:D"\n'
CAMERA = '[instruments.camera]\nruntime = "v4"\ndriver = "duodaq:PvcamActor"\n'


def load(text: str, folder: Path) -> None:
    (folder / "d.py").write_text("class D:\n    def __getattr__(self, name): ...\n")
    (folder / "lab.toml").write_text(text)
    load_lab(folder / "lab.toml")


@pytest.mark.parametrize(("runtime", "worker"), [("v2", "thread"), ("v2", "inline"), ("v4", "inline")])
def test_a_memory_limit_of_no_process_is_refused_with_what_would_be_right(
    runtime: str, worker: str, tmp_path: Path
) -> None:
    text = f'[runtimes.{runtime}]\nworker = "{worker}"\nmemory = "1 GB"\n{INSTRUMENT}'
    with pytest.raises(ConfigError, match="limits nothing") as caught:
        load(text, tmp_path)
    error = caught.value
    assert (error.file, error.line, error.key) == (str(tmp_path / "lab.toml"), 3, f"runtimes.{runtime}.memory")
    assert f'(worker = "{worker}")' in str(error)
    assert f'write worker = "process" in [runtimes.{runtime}] or in an instrument of it' in (error.remedy or "")


@pytest.mark.parametrize(
    "text",
    [
        f'[runtimes.v2]\nmemory = "1 GB"\n{INSTRUMENT}',
        f'[runtimes.v2]\nworker = "thread"\nmemory = "1 GB"\n{INSTRUMENT}worker = "own"\n',
        f'[runtimes.v2]\nworker = "thread"\nmemory = "1 GB"\n{INSTRUMENT}worker = "process"\n',
        f'[runtimes.v4]\nmemory = "1 GB"\n{CAMERA}',  # it lives in a process of its own by nature
        f'[runtimes.v4]\nworker = "process"\nmemory = "1 GB"\n{INSTRUMENT}',
    ],
)
def test_a_memory_limit_is_taken_where_a_process_is(text: str, tmp_path: Path) -> None:
    load(text, tmp_path)


def test_an_instrument_made_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"@i" is this instrument itself') as caught:
        load(f'{INSTRUMENT}args = {{ other = "@i" }}\n', tmp_path)
    assert (caught.value.line, caught.value.key) == (4, "instruments.i.args.other")
