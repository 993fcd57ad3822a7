"""A Mai Tai on its serial line: it answers queries, never speaks unasked, and switches its pump off when nobody talks.

The rules that must stay:

* Commands end CR, LF or both; replies end LF only, and carry their unit. Setters answer nothing.
* What is wrong answers nothing: it queues one error with its weight.
* ON does not open the shutter, OFF does not close it; power that comes or goes closes it.
* Only a valid command or query keeps the watchdog of TIM:WATC quiet.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from duodaq.sim._lines import CommandLine, LineReader
from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.maitai._flow import InputBuffer
from duodaq.sim.maitai._grammar import Command, parse
from duodaq.sim.maitai._head import QUICK, REAL, Head
from duodaq.sim.table import Table

_LIMITS_NM = {"MaiTai": (750.0, 850.0), "MaiTai XF": (780.0, 920.0), "MaiTai HP": (690.0, 1040.0)}
MODELS = tuple(f"{name}{warm}" for name in _LIMITS_NM for warm in ("", "/warm"))
"""``/warm``: it has been standing by for long when its line is opened first; after a power cycle it is cold too."""

COMMAND_ERROR, EXECUTION_ERROR, SYSTEM_ERROR, LASER_ON, ANY_ERROR = 1, 2, 32, 64, 128
_TEXTS = {0: "No error", COMMAND_ERROR: "Command error", EXECUTION_ERROR: "Execution error", SYSTEM_ERROR: "Watchdog"}
_QUEUE = 16
_THINKS_S = 0.02
_TICK_S = 0.05
_PUMP_W = 14.0


class _RefusalError(Exception):
    """It cannot be done; the weight goes to the error queue."""

    def __init__(self, weight: int) -> None:
        self.weight = weight


class MaiTaiSimulator:
    """One laser; it is the laser and the shutter of the optical table."""

    def __init__(self, table: Table, model: str = "MaiTai") -> None:
        self.name = "maitai"
        self.model = model
        self.line = Line(baud=9600, processing_s=0.0)
        self.tally = Tally()
        self.paced = True
        self._table = table
        self._warm = model.endswith("/warm")
        self._full_w = 0.0
        self._shown: tuple[Any, ...] = ()
        self._saved_nm: float | None = None
        self._powered = False

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        if not self._powered:
            self._full_w = self._table.truth().power_w
            self.power_cycle(now_s)
        return b""

    def close_session(self, client: int) -> None:
        """It does not notice: the watchdog is for that."""

    def power_cycle(self, now_s: float) -> None:
        """Pump off, cold, shutter closed; the wavelength is the one saved."""
        limits_nm = _LIMITS_NM[self.model.partition("/")[0]]
        self._head = Head(REAL if self.paced else QUICK, limits_nm, now_s, warm=self._warm and not self._powered)
        if self._saved_nm is not None:
            self._head.tune(self._saved_nm, now_s - 60.0)
        self._powered = True
        self._lines, self._input = LineReader(b"\r\n"), InputBuffer()
        self._unsent: list[Reply] = []
        self._errors: deque[int] = deque(maxlen=_QUEUE)
        self._mode, self._pump_current = "PPOW", 75.0
        self._watchdog_s, self._heard_s, self._free_s = 0.0, now_s, now_s
        self.watchdog_fired = 0
        self._shown = ()
        self._show(now_s)

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Take what came in, and carry out what it has time for."""
        for line in self._lines.feed(self._input.strip(data), pending):
            self._input.put(line)
        replies: list[Reply] = []
        if signal := self._input.signal():
            replies.append(Reply(0.0, signal, client))
        return replies + self._work(now_s, client)

    def due(self, now_s: float) -> list[Reply]:
        """Go on with what waits; the watchdog; the light that changes by itself."""
        if self._watchdog_s and now_s >= self._heard_s + self._watchdog_s:
            self._heard_s = now_s
            if self._head.on:
                self._head.switch_off()
                self.watchdog_fired += 1
                self._errors.append(SYSTEM_ERROR)
        self._show(now_s)
        return self._work(now_s, 0)

    def due_at_s(self) -> float | None:
        """When something happens by itself."""
        moments: list[float] = []
        if self._input:
            moments.append(self._free_s)
        if self._watchdog_s and self._head.on:
            moments.append(self._heard_s + self._watchdog_s)
        if self._head.changing(self._shown_s):
            moments.append(self._shown_s + _TICK_S)
        return min(moments) if moments else None

    def report(self) -> dict[str, Any]:
        """The tally, what the watchdog did, and what flow control had to drop."""
        if not self._powered:
            return self.tally.as_dict()
        return self.tally.as_dict() | {"watchdog_fired": self.watchdog_fired, "lines_lost": self._input.lost}

    def _work(self, now_s: float, client: int) -> list[Reply]:
        replies: list[Reply] = []
        while self._input and (not self.paced or now_s >= self._free_s):
            line = self._input.take()
            self._free_s = now_s + _THINKS_S
            if line.crowded or self._unsent:
                self.tally.interleavings += 1
            answer = self._execute(line, now_s)
            if answer is not None:
                self._unsent.append(Reply(0.0, f"{answer}\n".encode("latin-1"), client))
            if signal := self._input.signal():
                replies.append(Reply(0.0, signal, client))
            if not self._input.muted:
                replies += self._unsent
                self._unsent.clear()
        if self._unsent and not self._input.muted:
            replies += self._unsent
            self._unsent.clear()
        self._show(now_s)
        return replies

    def _execute(self, line: CommandLine, now_s: float) -> str | None:
        self.tally.commands += 1
        command = parse(line.text)
        if command is None:
            self.tally.misframed += line.text.count("?") > 1
            self._errors.append(COMMAND_ERROR)
            return None
        try:
            answer = self._answer(command, now_s) if command.query else self._do(command, now_s)
        except _RefusalError as refusal:
            self._errors.append(refusal.weight)
            return None
        self._heard_s = now_s
        if answer is not None:
            self.tally.exchanges += 1
            self.tally.produced[command.header] += 1
        return answer

    def _answer(self, command: Command, now_s: float) -> str:
        head = self._head
        load = head.pump if head.on else 0.0
        match command.header:
            case "*IDN":
                return "Spectra Physics,MaiTai,3227/51054/40856,0245-2.00.34 / CD00000019 / 214-00.004.057"
            case "*STB":
                return str(int(head.on) | 2 * int(head.locked(now_s)))
            case "READ:PCTW":
                return f"{head.percent_warm(now_s):03d}%"
            case "READ:WAV":
                return f"{head.wavelength_nm(now_s):.0f}nm"
            case "WAV":
                return f"{head.target_nm:.0f}nm"
            case "WAV:MIN" | "WAV:MAX":
                return f"{head.limits_nm[command.header == 'WAV:MAX']:.0f}nm"
            case "READ:POW":
                return f"{head.power_w(now_s):.3f}W"
            case "SHUT":
                return str(int(head.reported_shutter(now_s)))
            case "READ:PLAS:POW" | "PLAS:POW":
                return f"{_PUMP_W * (load if command.header.startswith('READ') else head.pump):.2f}W"
            case "READ:PLAS:PCUR" | "PLAS:PCUR":
                return f"{self._pump_current if head.on or command.header == 'PLAS:PCUR' else 0.0:.1f}%"
            case "READ:PLAS:DIOD:CURR" if command.suffix in (1, 2):
                return f"{self._pump_current if head.on else 0.0:.1f}%"
            case "READ:PLAS:DIOD:TEMP" if command.suffix in (1, 2):
                return "20.5"
            case "READ:PLAS:SHGS":
                return "0S" if head.percent_warm(now_s) in (0, 100) else "1S"
            case "READ:HUM":
                return "6.1%"
            case _:
                return self._answer_other(command)

    def _answer_other(self, command: Command) -> str:
        match command.header:
            case "MOD":
                return self._mode
            case "TIM:WATC":
                return f"{self._watchdog_s:.2f}"
            case "PLAS:ERRC":
                return "0"
            case "PLAS:HIST" | "PLAS:AHIS":
                return " ".join(["0"] * 16)
            case "SYST:ERR":
                return self._next_error()
            case _:
                raise _RefusalError(COMMAND_ERROR)

    def _next_error(self) -> str:
        weight = self._errors.popleft() if self._errors else 0
        lit = LASER_ON if self._head.on else 0
        return f"{weight | lit | (ANY_ERROR if weight else 0)} {_TEXTS[weight]}"

    def _do(self, command: Command, now_s: float) -> None:
        head = self._head
        match command.header:
            case "ON" if not command.argument:
                if not head.switch_on(now_s):
                    raise _RefusalError(EXECUTION_ERROR)
            case "OFF" if not command.argument:
                head.switch_off()
            case "SHUT":
                head.set_shutter(bool(_number(command, 0, 1, whole=True)), now_s)
            case "WAV":
                head.tune(round(_number(command, *head.limits_nm)), now_s)
            case "PLAS:POW":
                head.pump = _number(command, 0, _PUMP_W) / _PUMP_W
            case "PLAS:PCUR":
                self._pump_current = _number(command, 0, 100)
            case "MOD" if command.argument in ("PPOW", "PCUR"):
                self._mode = command.argument
            case "TIM:WATC":
                self._watchdog_s = _number(command, 0, 3600)
            case "SAV" if not command.argument:
                self._saved_nm = head.target_nm
            case "CONT:PHAS" | "CONT:MLEN" | "SYST:COMM:SER:BAUD":
                _number(command, 0, 57600)
            case _:
                raise _RefusalError(COMMAND_ERROR)

    def _show(self, now_s: float) -> None:
        """Let the table have the light that is made now."""
        head = self._head
        self._shown_s = now_s
        shown = (head.on, head.fraction(now_s), head.wavelength_nm(now_s), head.shutter_open)
        if shown == self._shown:
            return
        self._table.set_shutter(head.shutter_open)
        self._table.set_wavelength(head.wavelength_nm(now_s))
        self._table.set_laser(head.on, self._full_w * head.fraction(now_s))
        self._shown = shown


def _number(command: Command, low: float, high: float, *, whole: bool = False) -> float:
    try:
        value = float(command.argument)
    except ValueError:
        raise _RefusalError(COMMAND_ERROR) from None
    if not low <= value <= high or (whole and value != int(value)):
        raise _RefusalError(EXECUTION_ERROR)
    return value


def make(*, model: str | None, table: Table, seed: int) -> MaiTaiSimulator:
    """The simulator; it has no noise of its own."""
    chosen = model or MODELS[0]
    if chosen not in MODELS:
        raise ValueError(f"maitai has no model {chosen!r}; there are: {', '.join(MODELS)}")
    return MaiTaiSimulator(table, chosen)
