"""The ESP300 controller: takes lines, runs commands in order, holds them back while a wait is on, answers.

The rules that must stay:

* A command that is wrong answers nothing: it queues one error.
* A reply is one line ended by CR LF; a line with several queries gets one reply line for each.
* WS, WP and WT hold back every command behind them, queries too. A line of nothing but ST, AB, TS or TX is carried out
  at once all the same. ST and AB throw away motion commands that were held back, so that nothing moves behind a stop.
* Whoever sends a line while a reply is pending has interleaved it, unless it is nothing but ST and AB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from duodaq.sim._lines import LineReader
from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.esp300 import _errors as err
from duodaq.sim.esp300 import _grammar as grammar
from duodaq.sim.esp300._axis import Axis, Kind
from duodaq.sim.esp300._grammar import Command
from duodaq.sim.esp300._wait import Wait, wait_for_position, wait_for_stop, wait_for_time
from duodaq.sim.table import Table

_FIRMWARE = {"ESP300": "ESP300 Version 3.04 07/27/01", "ESP301": "ESP301 Version 3.07 10/09/08"}
_BAUD = {"ESP300": 19200, "ESP301": 921600}
_HELD_BACK = 256
_HISTORY = 200
_LIMIT_SILENCE_S = 2.0
"""After a travel limit the controller says nothing for a while (EPICS allows it 5 s)."""

MODELS = tuple(_FIRMWARE)


class _Held(NamedTuple):
    command: Command
    client: int


class Esp300Simulator:
    """One controller with three axes on the optical table; axis 1 carries the knife edge."""

    def __init__(self, table: Table, model: str = "ESP300", *, abort_leaves_motor_on: bool = True) -> None:
        self.name = "esp300"
        self.model = model
        self.line = Line(baud=_BAUD[model], processing_s=0.003)
        self.tally = Tally()
        self.paced = True
        self._table = table
        self._abort_leaves_motor_on = abort_leaves_motor_on
        self._moves: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._stops: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._powered = False

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked; its power comes on with its first line."""
        if not self._powered:
            self.power_cycle(now_s)
        return b""

    def close_session(self, client: int) -> None:
        """A serial controller does not notice."""

    def power_cycle(self, now_s: float) -> None:
        """Settings and errors are gone, motors off, every axis at rest where it stood, and that is zero."""
        self._powered = True
        self._lines = LineReader()
        self._reset(now_s)

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Take bytes, carry out what is complete and not held back."""
        self._settle(now_s)
        replies: list[Reply] = []
        for line in self._lines.feed(data, pending):
            commands = grammar.parse_line(line.text)
            waited_for = line.crowded or replies or any(held.command.query for held in self._held)
            if waited_for and not grammar.breaks_in(commands):
                self.tally.interleavings += 1
            if grammar.immediate(commands):
                for command in commands:
                    self._run(command, client, now_s, replies)
            else:
                self._hold(commands, client)
            self._run_held(now_s, replies)
        return replies

    def due(self, now_s: float) -> list[Reply]:
        """The replies to what was held back until now."""
        self._settle(now_s)
        replies: list[Reply] = []
        self._run_held(now_s, replies)
        return replies

    def due_at_s(self) -> float | None:
        """When an axis arrives or a wait ends."""
        moments = [moment for axis in self._axes.values() if (moment := axis.due_at_s()) is not None]
        if self._wait is not None and (moment := self._wait.due_at_s()) is not None:
            moments.append(moment)
        return min(moments, default=None)

    def report(self) -> dict[str, Any]:
        """The tally, the last moves and stops with their times, and the state of each axis."""
        return self.tally.as_dict() | {
            "moves": list(self._moves),
            "stops": list(self._stops),
            "motors": {str(number): axis.motor_on for number, axis in self._axes.items()},
            "doing": {str(number): axis.kind.value for number, axis in self._axes.items()},
            "errors_unread": len(self._errors),
            "errors_lost": self._errors.lost,
        }

    def _reset(self, now_s: float) -> None:
        self._errors = err.ErrorFifo(now_s)
        self._held: deque[_Held] = deque()
        self._wait: Wait | None = None
        self._plain = {axis: dict(grammar.PLAIN) for axis in (1, 2, 3)}
        self._hexadecimal = {axis: dict(grammar.HEXADECIMAL) for axis in (1, 2, 3)}
        self._system_bits = 0
        self._axes = {
            number: Axis.power_up(number, self._table, self._axis_error(number), now_s) for number in (1, 2, 3)
        }

    def _hold(self, commands: list[Command], client: int) -> None:
        room = _HELD_BACK - len(self._held)
        self.tally.impatient += max(0, len(commands) - room)
        self._held.extend(_Held(command, client) for command in commands[:room])

    def _run_held(self, now_s: float, replies: list[Reply]) -> None:
        while not self._waits(now_s) and self._held:
            held = self._held.popleft()
            self._run(held.command, held.client, now_s, replies)

    def _waits(self, now_s: float) -> bool:
        if self._wait is not None and self._wait.over(now_s):
            self._wait = None
        return self._wait is not None

    def _run(self, command: Command, client: int, now_s: float, replies: list[Reply]) -> None:
        self.tally.commands += 1
        text = self._execute(command, now_s)
        if text is not None:
            self.tally.exchanges += 1
            self.tally.produced[f"{command.axis or ''}{command.word}"] += 1
            replies.append(Reply(0.0, text.encode("ascii") + b"\r\n", client))

    def _execute(self, command: Command, now_s: float) -> str | None:
        if command.mixed or command.word not in grammar.WORDS:
            self.tally.misframed += command.mixed
            self.tally.interleavings += command.mixed
            self._errors.add(err.COMMAND_DOES_NOT_EXIST, now_s)
            return None
        if command.malformed:
            self._errors.add(err.PARAMETER_OUT_OF_RANGE, now_s)
            return None
        if command.word in grammar.GLOBAL_WORDS:
            return self._execute_global(command, now_s)
        if command.axis is None:
            self._errors.add(err.AXIS_MISSING, now_s)
            return None
        axis = self._axes.get(command.axis)
        if axis is None:
            self._errors.add(err.AXIS_OUT_OF_RANGE, now_s)
            return None
        return self._ask_axis(command, axis, now_s) if command.query else self._tell_axis(command, axis, now_s)

    def _execute_global(self, command: Command, now_s: float) -> str | None:
        if command.axis is not None and command.axis not in self._axes and command.word in ("ST", "WS"):
            self._errors.add(err.AXIS_OUT_OF_RANGE, now_s)
            return None
        match command.word:
            case "ST" | "AB":
                self._stop(command, now_s)
            case "WS":
                axes = [self._axes[command.axis]] if command.axis else list(self._axes.values())
                self._wait = wait_for_stop(axes, _milliseconds(command))
            case "WT":
                self._wait = wait_for_time(now_s + _milliseconds(command))
            case "RS":
                self._reset(now_s)
            case "SM":
                pass
            case "ZZ" if not command.query:
                self._system_bits = int(command.argument.rstrip("H") or "0", 16)
            case _:
                return self._status(command.word, now_s)
        return None

    def _status(self, word: str, now_s: float) -> str:
        match word:
            case "TE":
                return str(self._errors.take(now_s)[0])
            case "TB":
                code, ticks = self._errors.take(now_s)
                return f"{code}, {ticks}, {err.words(code)}"
            case "TS":
                return self._motion_byte(now_s)
            case "TX":
                return self._activity_byte(now_s)
            case "PH":
                return self._hardware_words(now_s)
            case "ZU":
                return "7H"
            case "ZZ":
                return f"{self._system_bits:X}H"
            case _:
                return _FIRMWARE[self.model]

    def _motion_byte(self, now_s: float) -> str:
        bits = 0x40 | (0x10 if any(axis.motor_on for axis in self._axes.values()) else 0)
        for number, axis in self._axes.items():
            bits |= axis.moving(now_s) << (number - 1)
        return chr(bits)

    def _activity_byte(self, now_s: float) -> str:
        axes = self._axes.values()
        bits = 0x40
        bits |= self._waits(now_s) << 1
        bits |= any(axis.kind is Kind.JOG for axis in axes) << 2
        bits |= any(axis.moving(now_s) for axis in axes) << 4
        return chr(bits)

    def _hardware_words(self, now_s: float) -> str:
        """Word 1: travel limit switches, bits 0-2 positive, 8-10 negative; word 2: home switches, bits 0-2."""
        limits = homes = 0
        for number, axis in self._axes.items():
            side = axis.at_limit(now_s)
            limits |= (side > 0) << (number - 1) | (side < 0) << (number + 7)
            homes |= (axis.profile.at(now_s)[0] >= axis.stage.home) << (number - 1)
        return f"{limits:X}H, {homes:X}H"

    def _ask_axis(self, command: Command, axis: Axis, now_s: float) -> str | None:
        word = command.word
        if word in grammar.LENGTHS:
            return _text(axis.get_length(word))
        if word in grammar.PLAIN:
            return _text(self._plain[axis.number][word])
        if word in grammar.HEXADECIMAL:
            return f"{self._hexadecimal[axis.number][word]:X}H"
        answers: dict[str, Callable[[], str]] = {
            "TP": lambda: _text(axis.position(now_s)),
            "DP": lambda: _text(axis.desired(now_s)),
            "TV": lambda: _text(axis.velocity(now_s)),
            "DV": lambda: _text(axis.velocity(now_s)),
            "MD": lambda: str(int(not axis.moving(now_s))),
            "MV": lambda: str(int(not axis.moving(now_s))),
            "MT": lambda: str(int(not axis.moving(now_s))),
            "MO": lambda: str(int(axis.motor_on)),
            "MF": lambda: str(int(axis.motor_on)),
            "PA": lambda: _text(axis.target()),
            "PR": lambda: _text(axis.target()),
            "SN": lambda: str(axis.units),
            "DH": lambda: _text(axis.get_length("SH")),
            "ID": lambda: f"{axis.stage.model}, {axis.stage.serial}",
        }
        if word not in answers:
            self._errors.add(err.COMMAND_NOT_ALLOWED, now_s)
            return None
        return answers[word]()

    def _tell_axis(self, command: Command, axis: Axis, now_s: float) -> None:
        word = command.word
        if word in ("MO", "MF"):
            axis.switch_motor(word == "MO", now_s)
        elif word == "OR":
            self._home(command, axis, now_s)
        elif word == "DH":
            axis.define_position(_first(command.argument) if command.argument else 0.0, now_s)
        elif word in ("MV", "MT"):
            self._travel(command, axis, now_s)
        elif word in ("UF", "QD"):
            return
        elif not command.argument:
            self._errors.add(err.PARAMETER_MISSING, now_s)
        elif word in grammar.HEXADECIMAL:
            self._hexadecimal[axis.number][word] = int(command.argument.rstrip("H"), 16)
        else:
            self._tell_number(word, _first(command.argument), axis, now_s)

    def _tell_number(self, word: str, value: float, axis: Axis, now_s: float) -> None:
        if word in grammar.LENGTHS:
            axis.set_length(word, value, now_s)
        elif word == "SN":
            axis.set_units(int(value), now_s)
        elif word == "WP":
            self._wait = wait_for_position(axis, value)
        elif word == "PA":
            self._note_move(axis.go_to(value, now_s), word, axis, now_s)
        elif word == "PR":
            self._note_move(axis.go_by(value, now_s), word, axis, now_s)
        elif word in grammar.PLAIN:
            self._plain[axis.number][word] = value
        else:
            self._errors.add(err.COMMAND_NOT_ALLOWED, now_s)

    def _home(self, command: Command, axis: Axis, now_s: float) -> None:
        mode = _first(command.argument) if command.argument else 1.0
        if mode not in range(7):
            self._errors.add(axis.number * 100 + err.AXIS_PARAMETER, now_s)
        else:
            self._note_move(axis.home(int(mode), now_s), "OR", axis, now_s)

    def _travel(self, command: Command, axis: Axis, now_s: float) -> None:
        if command.argument not in ("+", "-"):
            self._errors.add(err.PARAMETER_MISSING, now_s)
            return
        sign = 1 if command.argument == "+" else -1
        started = axis.go_on(sign, now_s) if command.word == "MV" else axis.go_to_hard_limit(sign, now_s)
        self._note_move(started, command.word, axis, now_s)

    def _note_move(self, started: bool, word: str, axis: Axis, now_s: float) -> None:
        if started:
            self._moves.append({"t_s": now_s, "axis": axis.number, "word": word, "target": axis.target()})

    def _stop(self, command: Command, now_s: float) -> None:
        everywhere = command.word == "AB" or command.axis is None
        axes = list(self._axes.values()) if everywhere else [self._axes[command.axis or 0]]
        moving = [axis.number for axis in axes if axis.moving(now_s)]
        self._stops.append({"t_s": now_s, "axis": command.axis, "word": command.word, "moving": moving})
        for axis in axes:
            axis.stop(now_s, emergency=command.word == "AB")
            if command.word == "AB" and not self._abort_leaves_motor_on:
                axis.switch_motor(False, now_s)
        stopped = {axis.number for axis in axes}
        self._held = deque(
            held for held in self._held if not (held.command.word in grammar.MOVING and held.command.axis in stopped)
        )
        if everywhere:
            self._wait = None

    def _settle(self, now_s: float) -> None:
        for axis in self._axes.values():
            axis.settle(now_s)

    def _axis_error(self, number: int) -> Callable[[int, float], None]:
        def report(code: int, now_s: float) -> None:
            self._errors.add(number * 100 + code, now_s)
            if self.paced and code in (err.POSITIVE_HARD_LIMIT, err.NEGATIVE_HARD_LIMIT):
                self._wait = wait_for_time(now_s + _LIMIT_SILENCE_S)

        return report


def _milliseconds(command: Command) -> float:
    return max(0.0, _first(command.argument)) / 1e3 if command.argument else 0.0


def _first(argument: str) -> float:
    return float(argument.split(",")[0])


def _text(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def make(*, model: str | None, table: Table, seed: int) -> Esp300Simulator:
    """The simulator of an ``ESP300`` (the default) or ``ESP301``; it has no noise of its own."""
    chosen = model or "ESP300"
    if chosen not in MODELS:
        raise ValueError(f"esp300 has no model {chosen!r}; there are: {', '.join(MODELS)}")
    return Esp300Simulator(table, chosen)
