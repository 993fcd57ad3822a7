"""A digital multimeter on the optical table: its DC volts input is the reference photodiode."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from duodaq.sim.scpi._argument import Args
from duodaq.sim.scpi._block import definite_block
from duodaq.sim.scpi._engine import ScpiSimulator
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._grammar import Unit
from duodaq.sim.scpi._level import level_commands
from duodaq.sim.scpi._meter import OVERLOAD, Bench, Meter
from duodaq.sim.scpi._profile import DmmProfile, Function
from duodaq.sim.scpi._sense import nr3, sense_commands
from duodaq.sim.scpi._status import Operation
from duodaq.sim.scpi._tree import Command, Wait
from duodaq.sim.scpi._trigger import Phase, TriggerSystem
from duodaq.sim.table import Table

__all__ = ["Multimeter"]

_PIECE = 4096
_UNTIL_REMOTE = ("READ", "MEAS", "MEASURE")


class Multimeter(ScpiSimulator):
    """34401A and 34465A, as far as their profiles differ.

    `external_trigger` is the plug on the rear panel, `front_terminals` the switch, `bench` what hangs on the other
    inputs.
    """

    name = "scpi-dmm"

    def __init__(self, profile: DmmProfile, table: Table, seed: int = 0, bench: Bench | None = None) -> None:
        self.profile = profile
        self.model = profile.model
        self.front_terminals = True
        self.readings: Counter[str] = Counter()
        self._meter = Meter(profile, table, seed, bench)
        self._trigger_system = TriggerSystem(profile.memory, overwrites=profile.truevolt)
        self._direct: list[float] = []
        self._streamed = 0
        self._reset_panel()
        super().__init__(
            line=profile.line,
            identity=profile.identity,
            input_limit=profile.input_limit,
            indefinite_idn=profile.indefinite_idn,
        )

    def external_trigger(self, now_s: float) -> None:
        """An edge at the Ext Trig connector; without effect when nobody waits for it."""
        if self._trigger_system.phase is Phase.WAITING and self._trigger_system.source == "EXT":
            self._trigger_system.trigger(now_s, "EXT")

    def report(self) -> dict[str, Any]:
        """The tally, the readings taken by function, and the noise of the present settings in volts."""
        return {
            **super().report(),
            "readings": dict(self.readings),
            "readings_lost": self._trigger_system.lost,
            "function": self._meter.function.name,
            "sigma": self._meter.sigma(),
        }

    # What happens in time

    def _tick(self, now_s: float) -> None:
        self._trigger_system.advance(now_s, self._take_reading)
        phase = self._trigger_system.phase
        condition = Operation.MEASURING if phase is Phase.MEASURING else 0
        condition |= Operation.WAITING_FOR_TRIGGER if phase is Phase.WAITING else 0
        self.status.operation.set_condition(int(condition))
        self.status.update()

    def _next_event_s(self) -> float | None:
        return self._trigger_system.next_event_s()

    def _is_busy(self) -> bool:
        return self._trigger_system.phase is not Phase.IDLE

    def _take_reading(self) -> float:
        value = self._meter.read()
        self.readings[self._meter.function.name] += 1
        bit = self._meter.overloaded
        self.status.questionable.set_condition(0 if bit is None else 1 << bit)
        return value

    def _start(self, *, direct: bool) -> None:
        system, meter = self._trigger_system, self._meter
        delay_s = meter.settling_s() if system.delay_auto else system.delay_s
        period_s = meter.integration_s() if self.paced else 0.0
        self._direct.clear()
        self._streamed = 0
        sink = self._direct.append if direct else None
        system.rising = self._slopes["TRIG"] == "POS"
        system.start(self._now_s, period_s, delay_s if self.paced else 0.0, sink)
        self._tick(self._now_s)

    def _change(self) -> None:
        """A setting changes: a measurement under way ends, and stored readings of other settings go."""
        self._trigger_system.abort()
        self._trigger_system.memory.clear()

    def _reset(self) -> None:
        self._meter.reset()
        self._trigger_system.reset()
        self._reset_panel()

    def _reset_panel(self) -> None:
        self._remote = False
        self._display_on, self._display_text = True, ""
        self._beeper, self._ascii, self._width = True, True, 64
        self._swapped = False
        self._slopes = {"TRIG": "NEG", "OUTP": "NEG"}

    def _trigger(self) -> None:
        self._trigger_system.trigger(self._now_s, "BUS")

    def _abort(self) -> None:
        self._trigger_system.abort()

    def _check_allowed(self, unit: Unit) -> None:
        if self.profile.needs_remote and not self._remote and unit.path[0] in _UNTIL_REMOTE:
            raise ScpiFault(550)

    # Readings out

    def _read(self, _: Args | None = None) -> Wait:
        """READ?: abort, initiate, and hand the readings on as they come."""
        system = self._trigger_system
        system.abort()
        if system.source == "BUS":
            raise ScpiFault(-214)
        if not self._ascii and system.trigger_count * system.sample_count > self.profile.memory:
            raise ScpiFault(531)
        self._start(direct=True)
        return Wait(self._poll_direct)

    def _poll_direct(self) -> bytes | None:
        done = self._trigger_system.phase is Phase.IDLE
        if not self._ascii:
            return self._encode(self._direct) if done else None
        if not done and len(self._direct) * 16 < _PIECE:
            return None
        lead = b"," if self._streamed and self._direct else b""
        piece = lead + self._encode(self._direct)
        self._streamed += len(self._direct)
        self._direct.clear()
        if done:
            return piece
        self._emit(piece)
        return None

    def _fetch(self, _: Args) -> Wait:
        system = self._trigger_system
        if system.phase is Phase.IDLE and not system.memory:
            raise ScpiFault(-230)
        if system.phase is Phase.WAITING and system.source == "BUS":
            raise ScpiFault(-214)  # the trigger it waits for would have to come through this very parser
        return Wait(self._poll_memory)

    def _poll_memory(self) -> bytes | None:
        if self._is_busy():
            return None
        if not self._trigger_system.memory:
            raise ScpiFault(-230)
        return self._encode(list(self._trigger_system.memory))

    def _encode(self, values: list[float], *, block: bool = False) -> bytes:
        self.tally.produced["reading"] += len(values)
        if self._ascii:
            text = ",".join(nr3(value) for value in values).encode()
            return definite_block(text) if block else text
        order = "<" if self._swapped else ">"
        return definite_block(struct.pack(f"{order}{len(values)}{'d' if self._width == 64 else 'f'}", *values))

    def _remove(self, count: int, *, block: bool) -> bytes:
        memory = self._trigger_system.memory
        return self._encode([memory.popleft() for _ in range(min(count, len(memory)))], block=block)

    # Commands

    def _commands(self) -> list[Command]:
        return [
            *sense_commands(self._meter, self._change),
            *self._measure_commands(),
            *self._trigger_commands(),
            *self._panel_commands(),
            *(self._truevolt_commands() if self.profile.truevolt else ()),
            Command("*OPT", most=0, query=lambda _: self.profile.options),
        ]

    def _measure_commands(self) -> list[Command]:
        commands = [
            Command("READ", most=0, query=self._read),
            Command("FETCh", most=0, query=self._fetch),
            Command("INITiate[:IMMediate]", most=0, set=lambda _: self._start(direct=False)),
            Command("CONFigure", most=0, query=lambda _: self._configuration()),
            Command("DATA:POINts", query=self._points),
        ]
        for function in self.profile.functions:
            commands += self._configure_commands(function)
        return commands

    def _configure_commands(self, function: Function) -> list[Command]:
        def configure(args: Args) -> None:
            self._configure(function, args)

        def measure(args: Args) -> Wait:
            self._configure(function, args)
            return self._read()

        most = 4 if function.name == "TEMP" else 0 if len(function.ranges) == 1 else 2
        return [
            Command(f"CONFigure[:SCALar]:{function.header}", most=most, set=configure),
            Command(f"MEASure[:SCALar]:{function.header}", most=most, query=measure),
        ]

    def _configure(self, function: Function, args: Args) -> None:
        """CONFigure: the function at its preset, the range and resolution asked for, triggers at once."""
        name = "VOLT" if function.name == "VOLT:RAT" else function.name
        wanted, resolution = self._expected(function, args)
        self._change()
        self._trigger_system.preset()
        self._meter.select(function.name)
        settings = self._meter.settings[name]
        settings.autorange, settings.nplc, settings.aperture_enabled = len(function.ranges) > 1, 10.0, False
        settings.autozero, settings.aperture_s = True, 0.1
        carrier = next(each for each in self.profile.functions if each.name == name)
        if wanted is not None:
            self._meter.set_range(carrier, wanted)
        if resolution is not None:
            self._meter.set_resolution(carrier, resolution)

    def _expected(self, function: Function, args: Args) -> tuple[float | None, float | None]:
        if function.name == "TEMP":
            args.drop()  # transducer type and its parameters: one kind of input is on this bench
            return None, None
        if not len(args) or len(function.ranges) == 1:
            return None, None
        automatic = args.next_is_word("DEFault") or args.next_is_word("AUTO")
        if function.aperture:
            if not automatic:
                args.number(3.0, 300_000.0) if function.name == "FREQ" else args.number(1 / 300_000, 1 / 3)
            args.drop()
            return None, None
        wanted = None if automatic else args.number(0.0, function.ranges[-1], unit=function.unit)
        if not len(args) or args.next_is_word("DEFault"):
            return wanted, None
        if wanted is None and not args.next_is_extreme():
            raise ScpiFault(-221)
        if wanted is None:
            return None, None
        span = next(value for value in function.ranges if value >= wanted * (1 - 1e-9))
        return wanted, args.number(min(self.profile.nplc.values()) * span, span, unit=function.unit)

    def _configuration(self) -> str:
        function, settings = self._meter.function, self._meter.setting
        if len(function.ranges) == 1:
            return f'"{function.name}"'
        carrier = next(each for each in self.profile.functions if self._meter.settings[each.name] is settings)
        return f'"{function.name} {settings.range_value:+.6E},{self._meter.resolution(carrier):+.6E}"'

    def _points(self, _: Args) -> str:
        return f"{len(self._trigger_system.memory):+d}"

    def _trigger_commands(self) -> list[Command]:
        system, most = self._trigger_system, self.profile.maximum_count

        def count(args: Args) -> None:
            system.trigger_count = args.number(1, most, 1, words={"INFinity": float("inf")})

        def count_read(args: Args) -> str:
            limit = args.limit(1, most, 1)
            value = system.trigger_count if limit is None else limit
            return nr3(OVERLOAD if value == float("inf") else round(value))

        def samples(args: Args) -> None:
            system.sample_count = args.integer(1, most, 1)

        def samples_read(args: Args) -> str:
            limit = args.limit(1, most, 1)
            return f"{system.sample_count if limit is None else round(limit):+d}"

        def delay(args: Args) -> None:
            system.delay_s, system.delay_auto = args.number(0, 3600, 0, unit="S"), False

        def delay_read(args: Args) -> str:
            limit = args.limit(0, 3600, 0)
            present = self._meter.settling_s() if system.delay_auto else system.delay_s
            return nr3(present if limit is None else limit)

        def automatic(args: Args) -> None:
            system.delay_auto = args.boolean()

        sources = ("IMMediate", "BUS", "EXTernal", *(("INTernal",) if self.profile.truevolt else ()))

        def source(args: Args) -> None:
            system.source = args.word(*sources)

        return [
            Command("TRIGger:SOURce", set=self._idle_first(source), query=lambda _: system.source),
            Command("TRIGger:COUNt", set=self._idle_first(count), query=count_read),
            Command("TRIGger:DELay", set=self._idle_first(delay), query=delay_read),
            Command("TRIGger:DELay:AUTO", set=self._idle_first(automatic), query=lambda _: f"{system.delay_auto:d}"),
            Command("SAMPle:COUNt", set=self._idle_first(samples), query=samples_read),
        ]

    def _idle_first(self, assign: Any) -> Any:
        def handler(args: Args) -> None:
            assign(args)
            self._trigger_system.abort()

        return handler

    def _panel_commands(self) -> list[Command]:
        def text(args: Args) -> None:
            self._display_text = args.text()[: self.profile.display_characters]

        def clear(_: Args) -> None:
            self._display_text = ""

        def display(args: Args) -> None:
            self._display_on = args.boolean()

        def beeper(args: Args) -> None:
            self._beeper = args.boolean()

        def remote(is_remote: bool) -> Any:
            def handler(_: Args) -> None:
                self._remote = is_remote

            return handler

        def quoted(_: Args) -> str:
            escaped = self._display_text.replace('"', '""')
            return f'"{escaped}"'

        return [
            Command("DISPlay[:STATe]", set=display, query=lambda _: f"{self._display_on:d}"),
            Command("DISPlay:TEXT[:DATA]", set=text, query=quoted),
            Command("DISPlay:TEXT:CLEar", most=0, set=clear),
            Command("ROUTe:TERMinals", most=0, query=lambda _: "FRON" if self.front_terminals else "REAR"),
            Command("SYSTem:BEEPer[:IMMediate]", most=0, set=lambda _: None),
            Command("SYSTem:BEEPer:STATe", set=beeper, query=lambda _: f"{self._beeper:d}"),
            Command("SYSTem:VERSion", most=0, query=lambda _: self.profile.scpi_version),
            Command("SYSTem:REMote", most=0, set=remote(True)),
            Command("SYSTem:RWLock", most=0, set=remote(True)),
            Command("SYSTem:LOCal", most=0, set=remote(False)),
        ]

    def _truevolt_commands(self) -> list[Command]:
        system = self._trigger_system

        def form(args: Args) -> None:
            kind = args.word("ASCii", "REAL")
            width = (args.integer(0, 64) if kind == "ASC" else args.integer(32, 64)) if len(args) else 64
            if kind == "REAL" and width not in (32, 64):
                raise ScpiFault(-224)
            self._ascii, self._width = kind == "ASC", width if kind == "REAL" else 64

        def border(args: Args) -> None:
            self._swapped = args.word("NORMal", "SWAPped") == "SWAP"

        def take(args: Args) -> bytes:
            count = args.integer(1, self.profile.memory) if len(args) else self.profile.memory
            return self._remove(count, block=True)

        def remove(args: Args) -> bytes | Wait:
            count = args.integer(1, self.profile.memory)
            if args.next_is_word("WAIT"):
                return Wait(lambda: self._remove(count, block=False) if self._has(count) else None)
            if not self._has(count):
                raise ScpiFault(-222)
            return self._remove(count, block=False)

        def sample_source(args: Args) -> None:
            system.sample_source = args.word("IMMediate", "TIMer")

        def timer(args: Args) -> None:
            system.timer_s = args.number(self._meter.integration_s(), 3600, 1, unit="S")

        def timer_read(args: Args) -> str:
            limit = args.limit(self._meter.integration_s(), 3600, 1)
            return nr3(system.timer_s if limit is None else limit)

        return [
            Command("ABORt", most=0, set=lambda _: system.abort()),
            Command("R", query=take),
            Command("DATA:REMove", most=2, query=remove),
            Command("DATA:LAST", most=0, query=lambda _: nr3(9.91e37 if system.last is None else system.last)),
            Command(
                "FORMat[:DATA]", most=2, set=form, query=lambda _: "ASC,9" if self._ascii else f"REAL,{self._width}"
            ),
            Command("FORMat:BORDer", set=border, query=lambda _: "SWAP" if self._swapped else "NORM"),
            Command("SAMPle:SOURce", set=self._idle_first(sample_source), query=lambda _: system.sample_source),
            Command("SAMPle:TIMer", set=self._idle_first(timer), query=timer_read),
            Command("SYSTem:LFRequency", query=lambda _: f"{self.profile.line_hz:+d}"),
            *level_commands(system, self.profile.memory, self._idle_first),
            self._slope_command("TRIGger:SLOPe", "TRIG"),
            self._slope_command("OUTPut:TRIGger:SLOPe", "OUTP"),
        ]

    def _slope_command(self, header: str, key: str) -> Command:
        def assign(args: Args) -> None:
            self._slopes[key] = args.word("POSitive", "NEGative")

        return Command(header, set=assign, query=lambda _: self._slopes[key])

    def _has(self, count: int) -> bool:
        if len(self._trigger_system.memory) < count and not self._is_busy():
            raise ScpiFault(-230)
        return len(self._trigger_system.memory) >= count
