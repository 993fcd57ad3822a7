"""The documents are true: lab files load, programs run on simulators, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup as Group
from typer.main import get_command

import duodaq
from duodaq.app import AxisHandle, InstrumentHandle, Lab, LabClient
from duodaq.cli._app import app
from duodaq.config import load_lab
from duodaq.config._complaints import known_keys
from duodaq.config._options import OPTIONS
from duodaq.sim import launch
from duodaq.testing import knife_edge, knife_edge_scan, record_run

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
COMMANDS = {name: command for name, command in get_command(app).commands.items() if not command.hidden}
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
    files = sorted(tmp_path.glob("*.toml"))
    assert len(files) == len(document.blocks("toml"))
    for file in files:
        assert load_lab(file).instruments


@dataclass
class Bench:
    """Simulators at the addresses that the documents name, started when a document names them."""

    stack: ExitStack
    addresses: dict[str, str] = field(default_factory=dict[str, str])

    def connect(self, folder: Path) -> None:
        for file in folder.glob("*.toml"):
            text = file.read_text(encoding="utf-8")
            for written, options in SIMULATORS.items():
                if f'"{written}"' in text:
                    text = text.replace(f'"{written}"', f'"{self.at(written, options)}"')
            file.write_text(text, encoding="utf-8")

    def run_and_serve(self, folder: Path, port: str) -> None:
        """The lab of the folder, and beside it the program that serves its streams, as a document says it."""
        for command in (["run", "lab.toml"], ["serve", "--flight", "--port", port]):
            program = [sys.executable, "-m", "duodaq.cli", *command]
            started = subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, text=True)
            self.stack.callback(started.communicate)
            self.stack.callback(started.terminate)
            assert started.stdout is not None
            assert any("Ctrl-C" in line for line in started.stdout)

    def at(self, written: str, options: dict[str, Any]) -> str:
        if written not in self.addresses:
            self.addresses[written] = self.stack.enter_context(launch(**options)).address
        return self.addresses[written]


SIMULATORS: dict[str, dict[str, Any]] = {
    "/dev/ttyUSB0": {"name": "esp300"},
    "run/stage": {"name": "esp300"},
    "192.168.1.20:5025": {"name": "scpi-dmm", "tcp": True},
    "192.168.1.21:5025": {"name": "scpi-dmm", "tcp": True, "model": "34465A"},
    "/dev/ttyUSB1": {"name": "shutter"},
    "/dev/ttyUSB2": {"name": "maitai", "model": "MaiTai HP/warm"},
    "/dev/ttyUSB4": {"name": "ell14"},
    "/dev/ttyUSB5": {"name": "newport1830c"},
    "192.168.1.30:5025": {"name": "scpi-psu", "tcp": True},
    "TCPIP0::192.168.1.40::hislip0::INSTR": {"name": "scpi-dmm", "hislip": True, "model": "34465A"},
    "192.168.1.31:5025": {"name": "scpi-scope", "tcp": True},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


@documents_with("python")
def test_programs_in_a_document_run(document: Document, tmp_path: Path, bench: Bench) -> None:
    virtual = str(free_port())  # for the documents' 5030, so that two runs on one machine can be
    text = document.text.replace("5030", virtual).replace("9464", str(free_port()))
    document = Document(document.path, text)
    document.write_files(tmp_path)
    bench.connect(tmp_path)
    if "duodaq.runs()" in document.text or ".replay(" in document.text:
        recorded = {"documents": knife_edge_scan(), "provenance": {"lab": "demo"}}
        record_run(tmp_path / "runs" / "demo", knife_edge(), **recorded)
    programs = [body for body in document.blocks("python") if not FILE_NAME.match(body)]
    if "serve --flight" in document.text and programs:
        served = str(free_port())
        bench.run_and_serve(tmp_path, served)
        programs = [body.replace("8815", served) for body in programs]
    run("\n".join(programs), tmp_path)


@documents_with("console")
def test_commands_in_a_document_exist(document: Document) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in "".join(document.blocks("console")).splitlines():
        program, name, *options = shlex.split(line.removeprefix("$ "))
        if program == "make":
            assert name in targets
            assert all(_collects_tests(option.removeprefix("ARGS=")) for option in options)
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
def _collects_tests(arguments: str) -> bool:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        *shlex.split(arguments),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)
    assert result.returncode == 0, result.stdout + result.stderr
    return True


@cache
def help_of(*command: str) -> str:
    """What a command of duodaq says of itself, wide enough to break no option."""
    program = [sys.executable, "-m", "duodaq.cli", *command, "--help"]
    wide = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1"}
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=60, env=wide).stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_reference_names_every_key_of_a_lab_file() -> None:
    text = (ROOT / "docs" / "reference" / "lab-file.md").read_text(encoding="utf-8")
    tables = [
        ("lab",),
        ("web",),
        ("runtimes", "v2"),
        ("ports", "p"),
        ("ports", "p", "serial"),
        ("ports", "p", "virtual"),
    ]
    tables += [("instruments", "i"), ("alarms", "a"), ("mail",)]
    dotted = [
        f"{name}.{key}"
        for name in ("metrics", "logging", "telemetry", "flight_recorder")
        for key in known_keys((name,))
    ]
    inner = [("instruments", "i", name, "x") for name in ("poll", "axes")] + [("instruments", "i", "safe")]
    keys = {key for table in (*tables, *inner) for key in known_keys(table)}
    keys |= set(dotted)
    keys |= {key for options in OPTIONS.values() for key in options.model_fields}
    assert {key for key in keys if f"`{key}`" not in text and f"`{key}." not in text} == set()


def test_reference_names_every_command_and_option() -> None:
    text = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f"## `duodaq {name}" not in text]
    for name, command in COMMANDS.items():
        section = text.partition(f"## `duodaq {name}")[2].partition("\n## ")[0]
        inner = command.commands if isinstance(command, Group) else {}
        missing += [f"{name} {one}" for one in inner if f"`duodaq {name} {one}" not in section]
        params = [*command.params, *(param for one in inner.values() for param in one.params)]
        options = [option for param in params for option in param.opts if option.startswith("--")]
        missing += [f"{name} {option}" for option in options if f"`{option}" not in section and option != "--help"]
    assert missing == []


def test_reference_names_everything_public() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", span)}
    members = {name for kind in (LabClient, InstrumentHandle, AxisHandle, Lab) for name in vars(kind) if name[0] != "_"}
    assert ({*duodaq.__all__} | members) - named == set()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda path: path.name)
def test_examples_are_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"))
