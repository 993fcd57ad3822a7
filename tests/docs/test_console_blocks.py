"""What the documents type at a terminal is typed there, in their order, and ends as it should."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from tests.docs.documents import ROOT, Bench, Document, document_of, documents_with, free_port

from duodaq.clock import Deadline, block
from duodaq.model import WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.testing import knife_edge, knife_edge_scan, record_run

GOES_ON = {
    "run": "Ctrl-C",
    "sim": '"address"',
    "serve": "Ctrl-C",
    "record": "Ctrl-C",
    "replay": '"address"',
    "tail": "\n",
}
"""What goes on until Ctrl-C, and what it says as soon as it does."""

ASKS_A_LAB = {"alarms", "apply", "ports", "presets", "record", "scan", "scans", "serve", "status", "stop-all"}

ELSEWHERE = {
    "make": "these are the tests, and test_documents looks for each that is chosen",
    ".": "the environment of whoever runs the tests",
    "pip": "installing is what `make demo` and `make test` do",
    "duodaq verify": "takes minutes: tests/integration/test_verify.py and test_verify_wheel.py",
}
"""What is not typed here, and where it is done instead."""

ENDS_WITH = {
    "duodaq alarms": (1, "is below 100000 mV"),
    "duodaq scans abort 1": (2, "scan 1 has ended: complete"),
    "duodaq migrate cutover meter --by anna --write": (1, "shadow"),
}
"""What a command ends with, if not with 0, and what it says then."""

INSTEAD = {
    "10 min": "1 s",
    "--host 0.0.0.0": "--host 127.0.0.1 --port 8815",
    "runs/20260504-101500-12": "runs/20260504-101500-1",
    "~/for-marie": "for-marie",
    "diff 12 13": "diff 1 2",
    "label 12": "label 1",
    "export 12": "export 1",
}
"""What is typed for a reader's own words: shorter times, no address beyond this machine."""

ALL_S = 90.0


@dataclass
class Typed:
    """A command at a terminal of its own."""

    line: str
    program: subprocess.Popen[bytes]
    end: int
    said: str = ""

    def until(self, seen: Callable[[str], bool], deadline: Deadline) -> bool:
        """Read what it says; whether that was seen before it ended. Whoever is asked says yes."""
        while not seen(self.said):
            assert not deadline.passed, f"{self.line}\n{self.said}"
            if not select.select([self.end], [], [], min(1.0, deadline.left_s))[0]:
                continue
            try:
                data = os.read(self.end, 65536)
            except OSError:  # no program has the terminal any more
                return False
            self.said += data.decode()
            if "[y/N]" in self.said.rpartition("\n")[2] and data:
                os.write(self.end, b"y\n")
        return True

    def close(self) -> int:
        deadline = Deadline(30.0)
        self.until(lambda _: False, deadline)
        code = self.program.wait(timeout=30)
        os.close(self.end)
        return code


@dataclass
class Terminal:
    """A folder, and what was begun there and goes on."""

    folder: Path
    bench: Bench
    environment: dict[str, str]
    deadline: Deadline
    open: list[Typed] = field(default_factory=list[Typed])
    instead: dict[str, str] = field(default_factory=lambda: dict(INSTEAD))

    def begin(self, line: str) -> Typed:
        _, *words = shlex.split(line)
        end, far = pty.openpty()
        command = [sys.executable, "-m", "duodaq.cli", *words]
        streams = {"stdin": far, "stdout": far, "stderr": far}
        try:
            program = self.bench.begin(
                command, cwd=self.folder, env=self.environment, start_new_session=True, **streams
            )
        finally:
            os.close(far)
        return Typed(line, program, end)

    def type(self, written: str) -> str:
        """Type a command as a document has it; what it said until it ended, or until it serves."""
        line = as_typed_here(written, self.instead)
        _, name, *rest = shlex.split(line)
        if name in ASKS_A_LAB or (name == "migrate" and rest[0] not in ("convert",) and "--replay" not in rest):
            self.have_a_lab()
        if name == "run":
            self.end("duodaq run")
        typed = self.begin(line)
        ready = GOES_ON.get(rest[0] if name == "ports" and rest else name)
        if ready is not None and not {"--detach", "--stop", "--once", "--file"} & {*rest}:
            self.open.append(typed)
            assert typed.until(lambda said: ready in said, self.deadline), typed.said
            return typed.said
        code, word = ENDS_WITH.get(written, (0, ""))
        typed.until(lambda _: False, self.deadline)
        assert typed.close() == code, f"{line}\n{typed.said}"
        assert word in typed.said
        return typed.said

    def have_a_lab(self) -> None:
        if not any(one.line.startswith("duodaq run") for one in self.open):
            self.type("duodaq run lab.toml")

    def end(self, begin: str = "") -> None:
        """Ctrl-C in each terminal where a command that begins so goes on, the last one first."""
        for one in [one for one in reversed(self.open) if one.line.startswith(begin)]:
            self.open.remove(one)
            one.program.send_signal(signal.SIGINT)
            code = one.close()
            assert code == 0, f"{one.line} ended with {code}\n{one.said}"


@contextmanager
def terminal(folder: Path, served: set[str], begin: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Terminal]:
    with ExitStack() as stack:
        bench = Bench(stack, begin)
        bench.connect(folder, but=served)
        environment = {**os.environ, "HOME": str(folder), "TERM": "xterm-256color", "COLUMNS": "120"}
        one = Terminal(folder, bench, environment, Deadline(ALL_S))
        try:
            yield one
            one.end()
        finally:
            for left in one.open:
                left.program.kill()
                left.program.wait()
                os.close(left.end)


# ---- what has to be there before ------------------------------------------------------------------------------------


def change_its_file(one: Terminal) -> None:
    one.have_a_lab()
    file, new = one.folder / "lab.toml", '[instruments.ticker]\nruntime = "v2"\ndriver = "./ticker.py:Ticker"\n'
    file.write_text(file.read_text().replace('"1 s"', '"2 s"') + new)


def stop_all(one: Terminal) -> None:
    """A flight recording is what a stop-all leaves."""
    one.type("duodaq stop-all")
    deadline = Deadline(20.0)
    while not (found := sorted(one.folder.glob("flight/2*/lab.json"))):
        assert not deadline.passed
        block(0.05)
    one.instead["--file flight"] = f"--file {found[0].parent}"


def runs_of_a_scan(one: Terminal) -> None:
    for name in ("20260504-101500-1", "20260504-101600-2"):
        known = {"documents": knife_edge_scan(), "provenance": {"lab": "demo"}}
        record_run(one.folder / "runs" / name, knife_edge(), **known)


def write_wires(one: Terminal) -> None:
    records = [
        WireRecord(10, "stage", ">", b"1PA3.5\r", "v4.stage", 1, None, 1),
        WireRecord(20, "stage", ">", b"1TP\r", "v4.stage", 2, None, 2),
        WireRecord(30, "stage", "<", b"3.5\r\n", "v4.stage", 2, None, 3),
        WireRecord(40, "meter", ">", b"E0\n", "v2.meter", 1, None, 4),
        WireRecord(50, "meter", ">", b"D?\n", "v2.meter", 2, None, 5),
        WireRecord(60, "meter", "<", b"1.25E-6\n", "v2.meter", 2, None, 6),
    ]
    for place in (one.folder / "runs" / "monday", one.folder / "runs"):
        place.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_stream(place / "wire.arrows", wire()) as file:
            file.write_batch(wire_batch(records, wire()))


def an_actor_of_ones_own(one: Terminal) -> None:
    write_wires(one)
    (source,) = [
        body for body in document_of("docs/how-to/write-your-own-actor.md").blocks("python") if "Meter(" in body
    ]
    (one.folder / "own.py").write_text(source.replace("class Meter(", "class Meter4("))


def make_certificates(one: Terminal) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    words = [*command.split(), "-keyout", "lab.key", "-out", "lab.pem"]
    subprocess.run(words, cwd=one.folder, check=True, capture_output=True, timeout=60)


def have_the_lab_of_the_readme(one: Terminal) -> None:
    write_wires(one)
    (file,) = [body for body in document_of("README.md").blocks("toml") if body.startswith("# lab.toml")]
    (one.folder / "lab.toml").write_text(file, encoding="utf-8")
    one.bench.connect(one.folder)


BEFORE: dict[str, Callable[[Terminal], None]] = {
    "docs/how-to/change-a-running-lab.md": change_its_file,
    "docs/how-to/metrics-and-traces.md": stop_all,
    "docs/how-to/move-an-instrument-to-v4.md": an_actor_of_ones_own,
    "docs/how-to/open-a-run.md": runs_of_a_scan,
    "docs/how-to/recover-a-run.md": runs_of_a_scan,
    "docs/how-to/replay-a-recording.md": write_wires,
    "docs/how-to/stream-to-another-program.md": make_certificates,
    "docs/reference/command-line.md": have_the_lab_of_the_readme,
}

# ---- and the documents ----------------------------------------------------------------------------------------------


def elsewhere(line: str) -> bool:
    program, name, *_ = shlex.split(line)
    return program in ELSEWHERE or f"{program} {name}" in ELSEWHERE


def scenes_of(document: Document) -> list[list[str]]:
    """The commands to be typed; those of a block by itself where each begins with the files as they are written."""
    blocks = [[line.removeprefix("$ ") for line in body.splitlines()] for body in document.blocks("console")]
    typed = [[line for line in block if not elsewhere(line)] for block in blocks]
    if document.path.name in ("move-an-instrument-to-v4.md", "command-line.md"):
        return typed
    return [[line for block in typed for line in block]]


def as_typed_here(line: str, instead: dict[str, str]) -> str:
    for written, typed in instead.items():
        line = line.replace(written, typed)
    return re.sub(r"(--port|--tcp|--hislip|--vxi11) \d+", lambda found: f"{found[1]} {free_port()}", line)


@documents_with("console")
def test_what_a_document_types_at_a_terminal_ends_as_it_says(
    document: Document, tmp_path: Path, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    name = str(document.path.relative_to(ROOT))
    for number, lines in enumerate(scenes_of(document)):
        if not lines:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        document.write_files(folder)
        served = set(re.findall(r"--link (\S+)", " ".join(lines)))
        with terminal(folder, served, begin) as one:
            if not lines[0].startswith("duodaq init"):
                BEFORE.get(name, lambda _: None)(one)
            for line in lines:
                one.type(line)
