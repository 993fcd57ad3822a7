"""What the Makefile leaves behind when a machine is barer than it can do with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
WITHOUT_PIP = """\
#!/bin/sh
if [ "$1" = -m ]; then mkdir -p .venv/bin && touch .venv/bin/python && echo "ensurepip is not available" >&2; exit 1; fi
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_an_environment_that_could_not_be_made_is_not_taken_for_one_the_next_time(tmp_path: Path) -> None:
    shutil.copy(MAKEFILE, tmp_path)
    python = tmp_path / "python"
    python.write_text(WITHOUT_PIP)
    python.chmod(0o755)
    for _ in range(2):
        made = subprocess.run(
            ["make", f"PYTHON={python}", ".venv/bin/python"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert made.returncode != 0
        assert "ensurepip is not available" in made.stderr
    assert not (tmp_path / ".venv").exists()
