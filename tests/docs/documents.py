"""The documents as their tests see them, and the bench that stands for what they name: simulators at its addresses."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from duodaq.sim import launch

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
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


def document_of(name: str) -> Document:
    return Document(ROOT / name, (ROOT / name).read_text(encoding="utf-8"))


@dataclass
class Bench:
    """Simulators at the addresses that the documents name, started when a document names them."""

    stack: ExitStack
    begin: Callable[..., subprocess.Popen[Any]]
    addresses: dict[str, str] = field(default_factory=dict[str, str])

    def connect(self, folder: Path, but: Collection[str] = ()) -> None:
        """Have the lab files there name simulators; all `but` what somebody else serves."""
        for file in folder.glob("*.toml"):
            text = file.read_text(encoding="utf-8")
            for written, options in SIMULATORS.items():
                if written not in but and f'"{written}"' in text:
                    text = text.replace(f'"{written}"', f'"{self.at(written, options)}"')
            file.write_text(text, encoding="utf-8")

    def run(self, folder: Path, *commands: list[str]) -> None:
        """Programs that go on beside the document's: the lab of the folder, what serves its streams."""
        for command in commands:
            program = [sys.executable, "-m", "duodaq.cli", *command]
            started = self.begin(program, cwd=folder, stdout=subprocess.PIPE, text=True)
            self.stack.callback(started.communicate)
            self.stack.callback(started.terminate)
            assert started.stdout is not None
            assert any("Ctrl-C" in line for line in started.stdout)

    def at(self, written: str, options: dict[str, Any]) -> str:
        if written not in self.addresses:
            self.addresses[written] = self.stack.enter_context(launch(**options)).address
        return self.addresses[written]


RUN_THE_LAB = ["run", "lab.toml"]
SIMULATORS: dict[str, dict[str, Any]] = {
    "/dev/ttyUSB0": {"name": "esp300"},
    "run/meter": {"name": "newport1830c"},
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
