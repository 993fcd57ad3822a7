"""A Newport 1830-C optical power meter at the level of the bytes on its line: one letter and a number, or ``?``.

It looks at the power behind the knife edge on the optical table. Its answers come from the reading of the moment; the
filter averages noise, never motion.
"""

from __future__ import annotations

import re
from enum import IntFlag
from math import log10
from typing import Any

from duodaq.sim._lines import CommandLine, LineReader
from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.table import Table

MODELS = ("1830-C", "1830-C/U2=dBm")
"""Sources differ in which of U2 and U3 is dBm: the second model has them the other way round."""

_POWER_UP_NM = 800
_DETECTOR_NM = (400, 1100)
_RANGES_W = tuple(2e-8 * 10**step for step in range(8))
_SATURATION_W = 0.3
_ATTENUATION = 1000.0
_RESOLUTION = 1 / 20000
_SAMPLES = {1: 16, 2: 4, 3: 1}
_POWER_UP_S = 0.5
_SAMPLE_S = 0.05
"""Of the right size, not measured; a reading is made of as many samples as the filter averages."""
_COMMAND = re.compile(r"([A-Z])S?(\?|[+-]?\d*)")
_TWO_COMMANDS = re.compile(r"[A-Z](\?|\d+).*[A-Z]")
_LIMITS = {
    "U": (1, 4),
    "R": (0, 8),
    "F": (1, 3),
    "A": (0, 1),
    "B": (0, 1),
    "G": (0, 1),
    "K": (0, 2),
    "L": (0, 1),
    "E": (0, 1),
    "Z": (0, 1),
    "W": _DETECTOR_NM,
}
_POWER_UP = {"U": 1, "R": 0, "F": 3, "A": 0, "B": 1, "G": 1, "K": 1, "L": 0, "E": 0, "Z": 0, "W": _POWER_UP_NM}


class Status(IntFlag):
    """The status byte of ``Q?``."""

    PARAMETER_ERROR = 1
    COMMAND_ERROR = 2
    SATURATED = 4
    OVER_RANGE = 8
    MESSAGE_AVAILABLE = 16
    BUSY = 32
    SERVICE_REQUEST = 64
    READ_DONE = 128


class Newport1830CSimulator:
    """One power meter; every ``D?`` that it answers is counted as produced under ``D``."""

    def __init__(self, table: Table, model: str = "1830-C") -> None:
        self.name = "newport1830c"
        self.model = model
        self.line = Line(baud=9600, processing_s=0.02)
        self.tally = Tally()
        self.paced = True
        self._table = table
        self._units = {1: "W", 2: "dB", 3: "dBm", 4: "REL"}
        if model != "1830-C":
            self._units |= {2: "dBm", 3: "dB"}
        self._powered = False

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        if not self._powered:
            self.power_cycle(now_s)
        return b""

    def close_session(self, client: int) -> None:
        """It does not notice."""

    def power_cycle(self, now_s: float) -> None:
        """Settings, zero and reference are those of power-up."""
        self._powered = True
        self._lines = LineReader(b"\n")
        self._set = dict(_POWER_UP)
        self._status = Status.READ_DONE
        self._zero_w = 0.0
        self._reference_w = 1e-3
        self._held_w: float | None = None
        self._cleared_s = now_s
        self._busy_until_s = now_s + _POWER_UP_S if self.paced else now_s

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Carry out every complete line."""
        replies: list[Reply] = []
        for line in self._lines.feed(data, pending):
            if line.crowded or replies:
                self.tally.interleavings += 1
            self.tally.commands += 1
            echo = f"{line.text}\n" if self._set["E"] else ""
            answer = self._execute(line, now_s)
            if answer is not None:
                self.tally.exchanges += 1
                self.tally.produced[line.text[0].upper()] += 1
            text = echo + (f"{answer}\n" if answer is not None else "")
            if text:
                replies.append(Reply(0.0, text.encode("latin-1"), client))
        return replies

    def due(self, now_s: float) -> list[Reply]:
        """It never speaks by itself."""
        return []

    def due_at_s(self) -> float | None:
        """It never speaks by itself."""
        return None

    def report(self) -> dict[str, Any]:
        """The tally, and the settings by letter."""
        return self.tally.as_dict() | {"settings": dict(self._set) if self._powered else {}}

    def _execute(self, line: CommandLine, now_s: float) -> str | None:
        text = "".join(line.text.split()).upper()
        match = _COMMAND.fullmatch(text)
        if match is None or (text[1:2] == "S" and text != "CS"):
            if _TWO_COMMANDS.match(text):
                self.tally.misframed += 1
                self.tally.interleavings += 1
            self._status |= Status.COMMAND_ERROR
            return None
        letter, argument = match[1], match[2]
        if argument == "?":
            return self._answer(letter, now_s)
        if letter in _LIMITS:
            self._change(letter, argument)
        elif argument:
            self._status |= Status.COMMAND_ERROR
        else:
            self._act(letter, now_s)
        return None

    def _answer(self, letter: str, now_s: float) -> str | None:
        if letter == "D":
            return self._reading()
        if letter == "Q":
            self._notice(now_s)
            return str(int(self._status | (Status.BUSY if now_s < self._busy_until_s else Status(0))))
        if letter == "W":
            return f"{self._set['W']:04d}"
        if letter in _LIMITS:
            return str(self._set[letter])
        self._status |= Status.COMMAND_ERROR
        return None

    def _change(self, letter: str, argument: str) -> None:
        low, high = _LIMITS[letter]
        if argument in ("", "+", "-") or not low <= int(argument) <= high:
            self._status |= Status.PARAMETER_ERROR
            return
        value = int(argument)
        if letter == "Z":
            self._zero_w = self._measure_w() + self._zero_w if value else 0.0
        if letter == "G":
            self._held_w = None if value else self._measure_w()
        self._set[letter] = value

    def _act(self, letter: str, now_s: float) -> None:
        match letter:
            case "C":
                self._status &= Status.MESSAGE_AVAILABLE
                self._cleared_s = now_s
            case "S":
                self._reference_w = self._measure_w()
            case "O":
                self._busy_until_s = now_s + (1.0 if self.paced else 0.0)
            case _:
                self._status |= Status.COMMAND_ERROR

    def _measure_w(self) -> float:
        light_w = self._table.power_w(_SAMPLES[self._set["F"]])
        return light_w * self._table.wavelength_nm() / self._set["W"] - self._zero_w

    def _notice(self, now_s: float) -> None:
        """It measures unasked: what the first reading after a clear says of the light is in the status by now."""
        period_s = _SAMPLE_S * _SAMPLES[self._set["F"]] if self.paced else 0.0
        if self._set["G"] and not self._status & Status.READ_DONE and now_s > self._cleared_s + period_s:
            self._within_reach(self._measure_w())

    def _within_reach(self, watts: float) -> tuple[float, float]:
        """What the detector and the range make of this light, and the range's full scale; the status says so."""
        limit_w = _SATURATION_W * (_ATTENUATION if self._set["A"] else 1.0)
        if watts > limit_w:
            self._status |= Status.SATURATED
            watts = limit_w
        full_scale_w = self._full_scale_w(watts)
        if abs(watts) > full_scale_w:
            self._status |= Status.OVER_RANGE
            watts = full_scale_w if watts > 0 else -full_scale_w
        self._status |= Status.READ_DONE
        return watts, full_scale_w

    def _reading(self) -> str:
        watts, full_scale_w = self._within_reach(self._measure_w() if self._held_w is None else self._held_w)
        step_w = full_scale_w * _RESOLUTION
        return self._in_units(round(watts / step_w) * step_w, full_scale_w)

    def _full_scale_w(self, watts: float) -> float:
        gain = _ATTENUATION if self._set["A"] else 1.0
        if self._set["R"]:
            return _RANGES_W[self._set["R"] - 1] * gain
        return next((limit * gain for limit in _RANGES_W if abs(watts) <= limit * gain), _RANGES_W[-1] * gain)

    def _in_units(self, watts: float, full_scale_w: float) -> str:
        unit = self._units[self._set["U"]]
        if unit == "W":
            return _engineering(watts, full_scale_w)
        ratio = watts / (1e-3 if unit == "dBm" else self._reference_w)
        if unit == "REL":
            return f"{ratio:+.4f}"
        return f"{10 * log10(ratio):+.3f}" if ratio > 0 else "-99.999"


def _engineering(watts: float, full_scale_w: float) -> str:
    """``+1.2345E-3``, ``+.7500E-9``: an exponent in steps of three from the range, no zero before the point."""
    exponent = next(power for power in range(3, -16, -3) if full_scale_w >= 10.0**power * 0.999)
    mantissa = f"{watts / 10.0**exponent:+.4f}"
    return f"{mantissa[0]}{mantissa[1:].removeprefix('0')}E{exponent}"


def make(*, model: str | None, table: Table, seed: int) -> Newport1830CSimulator:
    """The simulator; its noise is the table's."""
    chosen = model or MODELS[0]
    if chosen not in MODELS:
        raise ValueError(f"newport1830c has no model {chosen!r}; there are: {', '.join(MODELS)}")
    return Newport1830CSimulator(table, chosen)
