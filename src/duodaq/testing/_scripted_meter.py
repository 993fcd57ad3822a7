"""A power meter without hardware, behind a scripted port: a Newport 1830-C, as much of it as its drivers ask."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from duodaq.testing._scripted_port import Answer, ScriptedTransport

_LAB = """\
[lab]
name = "moving-{name}"

[runtimes.v2]
worker = "inline"

[ports.meter]
tcp = "127.0.0.1:1"
codec = "newport1830c"
timeout = "300 ms"

[instruments.meter]
runtime = "v2"
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
"""


def meter_lab_file(folder: Path, more: str = "") -> Path:
    """A lab file of the demo's power meter, in V2, at a port that is to be given the line of a scripted one.

    Args:
        folder: Where it lies; its name is part of the lab's.
        more: Lines that follow those of the instrument.
    """
    file = folder / "lab.toml"
    file.write_text(_LAB.format(name=folder.name) + more)
    return file


class ScriptedPowerMeter:
    """Answers at once, and notes every command with its own eyes.

    Attributes:
        line: The transport at whose far end it is.
        state: The last value of each setting, by its letter.
        readings: How many powers it has told; none of them twice.
        instead: What it answers to a question instead of the truth.
        garbles: So many of its next powers cannot be read.
        silent: It hears and does not answer.
    """

    def __init__(self) -> None:
        self.line = ScriptedTransport(self._hear, "meter")
        self.state = {"U": "1", "W": "0633", "F": "3", "Z": "0", "Q": "128"}
        self.readings = 0
        self.instead: dict[str, str] = {}
        self.garbles = 0
        self.silent = False

    def wavelengths(self) -> Counter[int]:
        """How often each wavelength was set."""
        return Counter(int(line[1:]) for line in self.line.lines if line[:1] == b"W" and line[1:2] != b"?")

    def _hear(self, line: bytes) -> Answer | None:
        text = line.decode().strip()
        if not text.endswith("?"):
            self.state[text[:1]] = text[1:]
            return None
        return None if self.silent else Answer(self._said_to(text).encode() + b"\n")

    def _said_to(self, question: str) -> str:
        if question in self.instead:
            return self.instead[question]
        if question != "D?":
            return self.state.get(question[:1], "0")
        if self.garbles:
            self.garbles -= 1
            return "+.7x5E-9"
        self.readings += 1
        return f"{self.readings * 1.234567:.6f}E-6"
