"""A driver that turns out to be wrong only when it is loaded: `duodaq run` starts nothing and names its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = {
    "v2, an import inside it is missing": ("v2", "import no_such_library\nclass Own: ...\n", "no_such_library"),
    "v4, an import inside it is missing": ("v4", "import no_such_library\nOwn = object\n", "no_such_library"),
    "v4, it is no actor": ("v4", "Own = type('Own', (), {})\n", "is no InstrumentActor"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_driver_that_cannot_be_loaded_ends_the_run_with_2_and_its_line(
    case: str, tmp_path: Path, duodaq_command: Callable[..., Any]
) -> None:
    runtime, code, said = CASES[case]
    (tmp_path / "own.py").write_text(code)
    file = tmp_path / "lab.toml"
    file.write_text(f'[instruments.own]\nruntime = "{runtime}"\ndriver = "./own.py:Own"\n')
    assert duodaq_command("check", file).returncode == 0
    ended = duodaq_command("run", file)
    assert ended.returncode == 2
    assert f"duodaq: {file}:3: instruments.own.driver: " in ended.stderr
    assert said in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr.partition("duodaq: ")[2]
