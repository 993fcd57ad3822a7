"""The documents are true: lab files load, programs run on simulators, commands exist, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.docs.documents import (
    BLOCK,
    DOCUMENTS,
    FILE_NAME,
    ROOT,
    RUN_THE_LAB,
    Bench,
    Document,
    document_of,
    documents_with,
    free_port,
)
from typer.core import TyperGroup as Group
from typer.main import get_command
from typer.testing import CliRunner

import duodaq
from duodaq.app import AxisHandle, InstrumentHandle, Lab, LabClient
from duodaq.cli._app import app
from duodaq.config import load_lab
from duodaq.testing import knife_edge, knife_edge_scan, record_run

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMANDS = {name: command for name, command in get_command(app).commands.items() if not command.hidden}


def run(begin: Callable[..., subprocess.Popen[str]], script: str, folder: Path) -> None:
    (folder / "as_in_the_document.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "as_in_the_document.py"]
    with begin(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            out, err = program.communicate(timeout=90)
        finally:
            program.kill()
    assert program.returncode == 0, out + err


@documents_with("toml")
def test_lab_file_in_a_document_is_right(document: Document, tmp_path: Path) -> None:
    document.write_files(tmp_path)
    files = sorted(tmp_path.glob("*.toml"))
    assert len(files) == len(document.blocks("toml"))
    for file in files:
        assert load_lab(file).instruments


@pytest.fixture
def bench(begin: Callable[..., subprocess.Popen[Any]]) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, begin)


@documents_with("python")
def test_programs_in_a_document_run(document: Document, tmp_path: Path, bench: Bench) -> None:
    virtual = str(free_port())  # for the documents' 5030, so that two runs on one machine can be
    text = document.text.replace("5030", virtual)
    for port in ("9464", "8400"):
        text = text.replace(port, str(free_port()))
    document = Document(document.path, text)
    document.write_files(tmp_path)
    bench.connect(tmp_path)
    if "duodaq.runs()" in document.text or ".replay(" in document.text:
        recorded = {"documents": knife_edge_scan(), "provenance": {"lab": "demo"}}
        record_run(tmp_path / "runs" / "demo", knife_edge(), **recorded)
    programs = [body for body in document.blocks("python") if not FILE_NAME.match(body)]
    if "serve --flight" in document.text and programs:
        served = str(free_port())
        bench.run(tmp_path, RUN_THE_LAB, ["serve", "--flight", "--port", served])
        programs = [body.replace("8815", served) for body in programs]
    elif any(" = duodaq.connect()" in body for body in programs):
        bench.run(tmp_path, RUN_THE_LAB)
    run(bench.begin, "\n".join(programs), tmp_path)


class FakeChopper:
    """A chopper's serial line, for the README's driver."""

    def write(self, data: bytes) -> None:
        assert data == b"RATE?\n"

    def readline(self) -> bytes:
        return b"120.5\n"


def test_the_driver_of_the_readme_measures() -> None:
    (source,) = [body for body in document_of("README.md").blocks("python") if body.startswith("# chopper.py")]
    known: dict[str, Any] = {}
    exec(source, known)
    assert known["Chopper"](FakeChopper()).get_rate() == 120.5


@documents_with("console")
def test_commands_in_a_document_exist(document: Document) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in "".join(document.blocks("console")).splitlines():
        program, name, *options = shlex.split(line.removeprefix("$ "))
        if program == "make":
            assert name in targets
            assert {option.partition("=")[0] for option in options} <= {"ARGS"}
            continue
        if (program, name) in {(".", ".venv/bin/activate"), ("pip", "install")}:
            continue
        assert program == "duodaq"
        command = [
            name,
            *(
                options[:1]
                if isinstance(COMMANDS.get(name), Group) and options and options[0] in COMMANDS[name].commands
                else []
            ),
        ]
        said = help_of(*command)
        assert [o for o in options if o.startswith("--") and o not in said] == []


@cache
def help_of(*command: str) -> str:
    """What a command of duodaq says of itself, wide enough to break no option."""
    said = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"}, terminal_width=300)
    assert said.exit_code == 0, said.output
    return said.output


COLLECT = """\
import json, sys, pytest
for arguments in json.load(sys.stdin):
    if pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *arguments]):
        sys.exit(f"no tests: {arguments}")
"""


def test_tests_chosen_in_a_document_exist() -> None:
    chosen = {
        option.removeprefix("ARGS=")
        for path in DOCUMENTS
        for block in Document(path, path.read_text(encoding="utf-8")).blocks("console")
        for line in block.splitlines()
        for option in shlex.split(line)
        if option.startswith("ARGS=tests")
    }
    assert len(chosen) >= 6
    asked = json.dumps([shlex.split(arguments) for arguments in sorted(chosen)])
    command = [sys.executable, "-c", COLLECT]
    result = subprocess.run(command, input=asked, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = {(path.parent / name if name else path, place) for name, place in links_of(path)}
    assert {target for target, _ in targets if not target.exists()} == set()
    assert {(target, place) for target, place in targets if place and place not in places_in(target)} == set()


def links_of(path: Path) -> list[tuple[str, str]]:
    return LINK.findall(BLOCK.sub("", path.read_text(encoding="utf-8")))


@cache
def places_in(path: Path) -> set[str]:
    """What a link into a document may name: its headings, as GitHub and the site spell them."""
    headings = HEADING.findall(BLOCK.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", ["tutorials", "how-to", "explanations", "reference", "decisions"])
def test_every_document_is_listed_where_a_reader_begins(folder: str) -> None:
    start = ROOT / "docs" / "decisions" / "README.md" if folder == "decisions" else ROOT / "docs" / "index.md"
    listed = {(start.parent / name).resolve() for name, _ in links_of(start) if name}
    assert {path for path in (ROOT / "docs" / folder).glob("*.md") if path != start} - listed == set()


def test_reference_names_everything_public() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", span)}
    members = {name for kind in (LabClient, InstrumentHandle, AxisHandle, Lab) for name in vars(kind) if name[0] != "_"}
    assert ({*duodaq.__all__} | members) - named == set()
