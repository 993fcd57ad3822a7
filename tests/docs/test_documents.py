"""The documents are true: lab files load, programs run on simulators, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.config._complaints import known_keys
from duodaq.config._options import OPTIONS
from duodaq.sim import SimProcess, launch

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
FILE_NAME = re.compile(r"# (\S+\.(?:toml|py))\n")


@dataclass(frozen=True)
class Document:
    path: Path
    text: str

    def blocks(self, language: str) -> list[str]:
        return [body for name, body in BLOCK.findall(self.text) if name == language]

    def write_files(self, folder: Path) -> None:
        """Write each block that begins with a file's name into that file."""
        for _, body in BLOCK.findall(self.text):
            if match := FILE_NAME.match(body):
                (folder / match[1]).write_text(body, encoding="utf-8")


def documents_with(language: str) -> pytest.MarkDecorator:
    found = [Document(path, path.read_text(encoding="utf-8")) for path in DOCUMENTS]
    having = [document for document in found if document.blocks(language)]
    return pytest.mark.parametrize("document", having, ids=[str(d.path.relative_to(ROOT)) for d in having])


def run(script: str, folder: Path) -> None:
    (folder / "as_in_the_document.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "as_in_the_document.py"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    assert result.returncode == 0, result.stdout + result.stderr


@documents_with("toml")
def test_lab_file_in_a_document_is_right(document: Document, tmp_path: Path) -> None:
    document.write_files(tmp_path)
    assert load_lab(tmp_path / "lab.toml").instruments


@dataclass
class Bench:
    """Simulators at the addresses that the documents name."""

    addresses: dict[str, str]

    def connect(self, folder: Path) -> None:
        file = folder / "lab.toml"
        text = file.read_text(encoding="utf-8")
        for written, real in self.addresses.items():
            text = text.replace(f'"{written}"', f'"{real}"')
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def bench() -> Iterator[Bench]:
    started: list[SimProcess] = []
    try:
        for name, tcp in (("esp300", False), ("scpi-dmm", True), ("shutter", False)):
            started.append(launch(name, tcp=tcp))
        stage, dmm, shutter = (process.address for process in started)
        yield Bench({"/dev/ttyUSB0": stage, "run/stage": stage, "192.168.1.20:5025": dmm, "/dev/ttyUSB1": shutter})
    finally:
        for process in started:
            process.stop()


@documents_with("python")
def test_programs_in_a_document_run(document: Document, tmp_path: Path, bench: Bench) -> None:
    document.write_files(tmp_path)
    bench.connect(tmp_path)
    programs = [body for body in document.blocks("python") if not FILE_NAME.match(body)]
    run("\n".join(programs), tmp_path)


@documents_with("console")
def test_commands_in_a_document_exist(document: Document) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in "".join(document.blocks("console")).splitlines():
        program, name, *options = line.removeprefix("$ ").split()
        if program == "make":
            assert name in targets
            continue
        assert program == "duodaq"
        command = [sys.executable, "-m", "duodaq.cli", name, "--help"]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert [o for o in options if o.startswith("--") and o not in result.stdout] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_reference_names_every_key_of_a_lab_file() -> None:
    text = (ROOT / "docs" / "reference" / "lab-file.md").read_text(encoding="utf-8")
    tables = [("lab",), ("runtimes", "v2"), ("ports", "p"), ("ports", "p", "serial"), ("instruments", "i")]
    inner = [("instruments", "i", name, "x") for name in ("poll", "axes")] + [("instruments", "i", "safe")]
    keys = {key for table in (*tables, *inner) for key in known_keys(table)}
    keys |= {key for options in OPTIONS.values() for key in options.model_fields}
    assert {key for key in keys if f"`{key}`" not in text and f"`{key}." not in text} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda path: path.name)
def test_examples_are_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"))
