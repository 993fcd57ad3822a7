"""Imports point down, and small programs on duodaq load little."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import duodaq
import duodaq.app
import duodaq.link
import duodaq.storage.export
import duodaq.storage.reading
import duodaq.testing.coexistence

ROOT = Path(__file__).parents[2]
LAZY = (
    duodaq,
    duodaq.app,
    duodaq.link,
    duodaq.storage.export,
    duodaq.storage.reading,
    duodaq.testing,
    duodaq.testing.coexistence,
)
HEAVY = ("pyarrow", "pydantic", "bluesky", "pymeasure", "scipy", "pandas", "typer", "duodaq.app", "duodaq.config")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


def test_import_contracts_are_kept() -> None:
    code = "from importlinter.cli import lint_imports_command as main; main()"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stdout + result.stderr


SMALL = [
    "duodaq",
    "duodaq.model",
    "duodaq.ports",
    "duodaq.link",
    "duodaq.drivers",
    "duodaq.watchdog.owner",
    "pyvisa_duodaq",
]


@pytest.mark.parametrize("module", SMALL)
def test_small_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_attaching_to_a_lab_loads_neither_runtimes_nor_drivers() -> None:
    code = "import sys, json, duodaq; duodaq.connect; print(json.dumps([*sys.modules]))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    heavy = {
        "pyarrow",
        "pydantic",
        "bluesky",
        *(f"duodaq.{part}" for part in ("config", "dual", "v2", "v4", "workers")),
    }
    assert heavy & set(json.loads(result.stdout)) == set()


def test_a_lab_loads_nothing_that_paints_and_who_wants_it_has_it_whole() -> None:
    code = """
import sys, duodaq, duodaq.v2, duodaq.v4
duodaq.open
assert not {"rich", "pygments"} & set(sys.modules), "they are loaded"
import rich.pretty, rich.traceback
"""
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr


OF_A_LAB = """
import sys
from duodaq.app import Lab
from duodaq.config._lab_file import LabFile
late = {"rich", "pygments", "pyarrow.compute", "h5py", "duodaq.storage.reading._run", "duodaq.storage.export._export"}
assert not late & set(sys.modules), late & set(sys.modules)
assert not LabFile.__pydantic_complete__, "its schema is built before there is a file"
"""


def test_a_lab_loads_nothing_that_reads_runs_and_builds_no_schema_before_it_has_a_file() -> None:
    result = run(sys.executable, "-c", OF_A_LAB)
    assert result.returncode == 0, result.stderr


STOP_ALL = """
import json, socket, sys
from duodaq.cli import main

sent = socket.socket.sendall
def heard(line, data):
    print(json.dumps([*sys.modules]))
    return sent(line, data)

socket.socket.sendall = heard
sys.argv = ["duodaq", "stop-all", "--lab", sys.argv[1]]
main()
"""


def answer_a_stop_all(lab: socket.socket) -> None:
    line, _ = lab.accept()
    with line:
        decoder = duodaq.link.FrameDecoder()
        heard: list[Any] = []
        while len(heard) < 3:
            heard += decoder.feed(line.recv(65536))
        assert [sentence[0] for sentence in heard] == ["hello", "request", "request"]
        report = {"ended": 0, "on_wire_ns": {"stage": 1}, "failures": {}, "no_fail_safe": []}
        line.sendall(duodaq.link.encode(("reply", heard[2][1], report)))


def test_a_stop_all_is_on_its_way_before_options_are_read_words_painted_or_arrays_known(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nobody:
        nobody.bind(str(tmp_path / "lab.sock"))
        nobody.listen()
        answers = threading.Thread(target=answer_a_stop_all, args=(nobody,))
        answers.start()
        result = run(sys.executable, "-c", STOP_ALL, str(tmp_path / "lab.sock"))
        answers.join()
    assert result.returncode == 0, result.stderr
    assert "stage: stop is on the wire" in result.stdout
    loaded = set(json.loads(result.stdout.splitlines()[0]))
    assert "duodaq.app._stopping" in loaded
    late = {"rich", "typer", "numpy", "pydantic", "structlog", "duodaq.app._client", "duodaq.telemetry", "duodaq.model"}
    assert late & loaded == set()


def test_the_visa_backend_loads_the_link_and_the_ports_alone() -> None:
    pytest.importorskip("pyvisa")
    code = "import sys, json, pyvisa_duodaq; print(json.dumps([m for m in sys.modules if m.startswith('duodaq.')]))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    parts = {name.split(".")[1] for name in json.loads(result.stdout)}
    assert parts <= {"_names", "clock", "errors", "link", "model", "ports", "telemetry", "units"}


def test_the_watchdog_loads_the_standard_library_alone_and_no_event_loop() -> None:
    code = "import sys, json, duodaq.watchdog, duodaq.watchdog._process; print(json.dumps(sorted(sys.modules)))"
    result = run(sys.executable, "-P", "-c", code)
    assert result.returncode == 0, result.stderr
    first = {name.partition(".")[0] for name in json.loads(result.stdout)} - {"__main__", "duodaq"}
    loaded = {name for name in first if not name.startswith(("__editable__", "_distutils", "sitecustomize"))}
    assert loaded - sys.stdlib_module_names == set()
    assert not loaded & {"asyncio", "subprocess"}
    assert not {"duodaq.app", "duodaq.clock", "duodaq.ports"} & set(json.loads(result.stdout))


@pytest.mark.parametrize("module", ["duodaq.testing.coexistence._fragile", "tests.integration.managed_drivers"])
def test_a_worker_that_hosts_what_tests_made_loads_no_more_than_that_needs(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    late = {"pytest", "pydantic", "duodaq.config", "duodaq.dual", "duodaq.storage"}
    assert late & set(json.loads(result.stdout)) == set()


def test_nothing_that_ships_imports_the_test_kit() -> None:
    source = ROOT / "src" / "duodaq"
    importers = [
        str(path.relative_to(ROOT))
        for path in source.rglob("*.py")
        if not path.is_relative_to(source / "testing")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "duodaq.testing" in ast.unparse(node)
    ]
    assert importers == []


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in LAZY for name in package.__all__])
def test_public_name_is_there(package: ModuleType, name: str) -> None:
    assert getattr(package, name) is not None
    assert name in dir(package)


@pytest.mark.parametrize("package", LAZY)
def test_name_that_is_not_there_is_an_attribute_error(package: Any) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


PACKAGES = sorted(".".join(path.parent.relative_to(ROOT / "src").parts) for path in (ROOT / "src").rglob("__init__.py"))
EACH = """\
import importlib, os, sys

def whole(name):
    package = importlib.import_module(name)
    return [one for one in getattr(package, "__all__", ()) if not hasattr(package, one)]

for foreign in sys.argv[2].split(","):
    importlib.import_module(foreign)
assert not [name for name in sys.modules if name.partition(".")[0] in ("duodaq", "pyvisa_duodaq")]
for name in sys.argv[1].split(","):
    child = os.fork()
    if not child:
        gone = whole(name)
        if gone:
            print(f"{name} has no {gone}", file=sys.stderr, flush=True)
        os._exit(bool(gone))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{name} cannot be imported first, or lacks what it promises")
"""
FOREIGN = (
    *("numpy", "pyarrow", "pyarrow.ipc", "pyarrow.compute", "pyarrow.flight", "pydantic", "msgspec", "structlog"),
    *("rich.traceback", "typer", "fastapi", "uvicorn", "bluesky.run_engine", "bluesky.plans", "jsonschema", "psutil"),
)


def test_each_package_can_be_the_first_that_is_imported_and_has_what_its_all_promises() -> None:
    """Each in a process of its own, forked from one that has loaded other people's libraries alone."""
    assert len(PACKAGES) > 20
    result = run(sys.executable, "-W", "error", "-c", EACH, ",".join(PACKAGES), ",".join(FOREIGN))
    assert result.returncode == 0, result.stderr
