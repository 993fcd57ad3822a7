"""An oscilloscope: channels, time base, edge trigger, and waveforms out as blocks of bytes, words or text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duodaq.sim.scpi._argument import Args
from duodaq.sim.scpi._block import definite_block
from duodaq.sim.scpi._engine import ScpiSimulator
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._scope_profile import ScopeProfile
from duodaq.sim.scpi._scope_signals import Channel, Signals, digitise
from duodaq.sim.scpi._scope_trigger import Acquisition, Mode, Picture
from duodaq.sim.scpi._tree import Command, Wait
from duodaq.sim.table import Table

__all__ = ["Oscilloscope"]

_RUNNING = 1 << 3
_DIGITS = 8
_FORMATS = {"BYTE": 0, "WORD": 1, "ASC": 4}
_POINTS = (100, 62_500)
Assign = Callable[[Args], None]


class Oscilloscope(ScpiSimulator):
    """An InfiniiVision, as far as drivers go: ``:DIGitize`` holds what follows until the picture is complete."""

    name = "scpi-scope"

    def __init__(self, profile: ScopeProfile, table: Table, seed: int = 0) -> None:
        self.profile = profile
        self.model = profile.model
        self._signals = Signals(table, seed)
        self._acquisition = Acquisition(self._signals)
        self._waves: dict[int, tuple[Picture, NDArray[np.float64]]] = {}
        self._reset_settings()
        super().__init__(line=profile.line, identity=profile.identity, input_limit=1 << 16)

    def report(self) -> dict[str, Any]:
        """The tally, and what it does."""
        return {**super().report(), "mode": str(self._acquisition.mode)}

    def _tick(self, now_s: float) -> None:
        self._acquisition.advance(now_s, paced=self.paced)
        self.status.operation.set_condition(0 if self._acquisition.mode is Mode.STOP else _RUNNING)
        self.status.update()

    def _next_event_s(self) -> float | None:
        return self._acquisition.next_s(paced=self.paced)

    def _is_busy(self) -> bool:
        return self._acquisition.busy

    def _reset(self) -> None:
        self._acquisition.reset()
        self._waves.clear()
        self._reset_settings()

    def _reset_settings(self) -> None:
        self.channels = {number: Channel(shown=number == 1) for number in range(1, self.profile.channels + 1)}
        self._source, self._format, self._points = 1, "BYTE", 1000
        self._lsb_first = False
        self._kind, self._average = "NORM", 8

    def _trigger(self) -> None:
        self._acquisition.forced = True

    def _abort(self) -> None:
        if self._acquisition.busy:
            self._acquisition.begin(Mode.STOP, self._now_s)

    # Waveforms

    def _picture(self) -> Picture:
        picture = self._acquisition.picture
        if picture is None or not self.channels[self._source].shown:
            raise ScpiFault(-230)
        return picture

    def _wave(self) -> tuple[Picture, NDArray[np.float64]]:
        """The last picture, and what the chosen channel did in it; each picture is looked at once."""
        picture = self._picture()
        kept = self._waves.get(self._source)
        if kept is not None and kept[0].number == picture.number and len(kept[1]) == self._points:
            return kept
        steps = np.arange(self._points, dtype=np.float64)
        x: NDArray[np.float64] = self._x_origin(picture) + self._x_increment(picture) * steps
        volts = self._signals.volts(self._source, picture.trigger_s + x)
        if self._kind == "AVER":
            others = [self._signals.volts(self._source, picture.trigger_s + x) for _ in range(self._average - 1)]
            volts = np.asarray(np.mean([volts, *others], axis=0), np.float64)
        self._waves[self._source] = picture, volts
        return picture, volts

    def _x_increment(self, picture: Picture) -> float:
        return picture.range_s / self._points

    def _x_origin(self, picture: Picture) -> float:
        return picture.position_s - picture.range_s / 2

    def _y_scaling(self) -> tuple[float, float, int]:
        channel, wide = self.channels[self._source], self._format == "WORD"
        return channel.volts_per_code / (256 if wide else 1), channel.offset_v, 32768 if wide else 128

    def _preamble(self, _: Args) -> str:
        picture = self._picture()
        increment, origin, reference = self._y_scaling()
        kind = 2 if self._kind == "AVER" else 0
        fields = [_FORMATS[self._format], kind, self._points, self._average if kind else 1]
        x = [_number(self._x_increment(picture)), _number(self._x_origin(picture)), "0"]
        y = [_number(increment), _number(origin), str(reference)]
        return ",".join([*(str(field) for field in fields), *x, *y])

    def _data(self, _: Args) -> bytes:
        volts = self._wave()[1]
        self.tally.produced[f"CHAN{self._source}"] += len(volts)
        codes = digitise(volts, self.channels[self._source], wide=self._format == "WORD")
        if self._format == "BYTE":
            payload = codes.astype(np.uint8).tobytes()
        elif self._format == "WORD":
            payload = codes.astype("<u2" if self._lsb_first else ">u2").tobytes()
        else:
            increment, origin, reference = self._y_scaling()
            text = ",".join(_number((float(code) - reference) * increment + origin) for code in codes)
            payload = text.encode()
        return definite_block(payload, digits=_DIGITS)

    def _measure(self, of: Callable[[NDArray[np.float64]], float]) -> Callable[[Args], str]:
        def ask(args: Args) -> str:
            if len(args):
                self._source = self._channel_word(args)
            return _number(of(self._wave()[1]))

        return ask

    # Commands

    def _commands(self) -> list[Command]:
        return [
            *self._run_commands(),
            *self._channel_commands(),
            *self._timebase_commands(),
            *self._trigger_commands(),
            *self._waveform_commands(),
            *self._other_commands(),
        ]

    def _run_commands(self) -> list[Command]:
        def begin(mode: Mode) -> Assign:
            return lambda _: self._acquisition.begin(mode, self._now_s)

        def digitise_now(args: Args) -> Wait:
            while len(args):
                self.channels[self._channel_word(args)].shown = True
            self._acquisition.begin(Mode.SINGLE, self._now_s)
            return Wait(lambda: None if self._acquisition.busy else b"")

        def trigger_event(_: Args) -> str:
            seen, self._acquisition.triggered = self._acquisition.triggered, False
            return f"{seen:+d}"

        return [
            Command("RUN", most=0, set=begin(Mode.RUN)),
            Command("STOP", most=0, set=begin(Mode.STOP)),
            Command("SINGle", most=0, set=begin(Mode.SINGLE)),
            Command("DIGitize", most=self.profile.channels, set=digitise_now),
            Command("TER", most=0, query=trigger_event),
            Command(
                "OPERegister:CONDition", query=lambda _: f"{_RUNNING * (self._acquisition.mode is not Mode.STOP):+d}"
            ),
            Command("AUToscale", most=0, set=lambda _: self._autoscale()),
        ]

    def _autoscale(self) -> None:
        for number, channel in self.channels.items():
            low, high = self._signals.span(number)
            channel.shown = high > low
            channel.scale_v, channel.offset_v = max((high - low) / 4, 0.1), (low + high) / 2
        self._acquisition.range_s = 5e-3
        self._acquisition.level_v = self.channels[self._acquisition.source].offset_v
        self._acquisition.begin(Mode.RUN, self._now_s)

    def _channel_commands(self) -> list[Command]:
        def number(name: str, low: float, high: float, factor: float = 1.0) -> dict[str, Any]:
            def assign(args: Args) -> None:
                channel = self._channel(args.suffixes[0])
                setattr(channel, name, args.number(low, high, unit="V") / factor)

            def ask(args: Args) -> str:
                return _number(getattr(self._channel(args.suffixes[0]), name) * factor)

            return {"set": assign, "query": ask}

        def shown(args: Args) -> None:
            self._channel(args.suffixes[0]).shown = args.boolean()

        def coupling(args: Args) -> None:
            self._channel(args.suffixes[0]).coupling = args.word("AC", "DC")

        return [
            Command("CHANnel#:SCALe", **number("scale_v", 5e-4, 10.0)),
            Command("CHANnel#:RANGe", **number("scale_v", 4e-3, 80.0, 8.0)),
            Command("CHANnel#:OFFSet", **number("offset_v", -50.0, 50.0)),
            Command("CHANnel#:PROBe", **number("probe", 0.001, 10_000.0)),
            Command("CHANnel#:DISPlay", set=shown, query=lambda args: f"{self._channel(args.suffixes[0]).shown:d}"),
            Command("CHANnel#:COUPling", set=coupling, query=lambda args: self._channel(args.suffixes[0]).coupling),
        ]

    def _channel(self, number: int) -> Channel:
        if number not in self.channels:
            raise ScpiFault(-114)
        return self.channels[number]

    def _channel_word(self, args: Args) -> int:
        word = args.word(*(f"{name}{number}" for number in self.channels for name in ("CHANnel",)))
        return int(word.removeprefix("CHAN"))

    def _timebase_commands(self) -> list[Command]:
        acquisition = self._acquisition

        def assign(name: str, low: float, high: float, factor: float) -> dict[str, Any]:
            def change(args: Args) -> None:
                setattr(acquisition, name, args.number(low, high, unit="S") * factor)

            def ask(_: Args) -> str:
                return _number(getattr(acquisition, name) / factor)

            return {"set": change, "query": ask}

        return [
            Command("TIMebase:SCALe", **assign("range_s", 5e-9, 50.0, 10.0)),
            Command("TIMebase:RANGe", **assign("range_s", 5e-8, 500.0, 1.0)),
            Command("TIMebase:POSition", **assign("position_s", -500.0, 500.0, 1.0)),
            Command("TIMebase:MODE", set=lambda args: _only(args, "MAIN"), query=lambda _: "MAIN"),
        ]

    def _trigger_commands(self) -> list[Command]:
        acquisition = self._acquisition

        def source(args: Args) -> None:
            acquisition.source = self._channel_word(args)

        def level(args: Args) -> None:
            acquisition.level_v = args.number(-50.0, 50.0, unit="V")

        def slope(args: Args) -> None:
            acquisition.rising = args.word("POSitive", "NEGative") == "POS"

        def sweep(args: Args) -> None:
            acquisition.sweep = args.word("AUTO", "NORMal")

        edge = "TRIGger[:EDGE]"
        return [
            Command("TRIGger:MODE", set=lambda args: _only(args, "EDGE"), query=lambda _: "EDGE"),
            Command(f"{edge}:SOURce", set=source, query=lambda _: f"CHAN{acquisition.source}"),
            Command(f"{edge}:LEVel", set=level, query=lambda _: _number(acquisition.level_v)),
            Command(f"{edge}:SLOPe", set=slope, query=lambda _: "POS" if acquisition.rising else "NEG"),
            Command("TRIGger:SWEep", set=sweep, query=lambda _: acquisition.sweep),
            Command("TRIGger:FORCe", most=0, set=lambda _: self._trigger()),
        ]

    def _waveform_commands(self) -> list[Command]:
        def source(args: Args) -> None:
            self._source = self._channel_word(args)

        def form(args: Args) -> None:
            self._format = args.word("BYTE", "WORD", "ASCii")

        def points(args: Args) -> None:
            self._points = args.integer(_POINTS[0], self.profile.memory, 1000)

        def order(args: Args) -> None:
            self._lsb_first = args.word("LSBFirst", "MSBFirst") == "LSBF"

        wave = "WAVeform"
        return [
            Command(f"{wave}:SOURce", set=source, query=lambda _: f"CHAN{self._source}"),
            Command(f"{wave}:FORMat", set=form, query=lambda _: self._format),
            Command(f"{wave}:POINts", set=points, query=lambda _: f"{self._points:+d}"),
            Command(f"{wave}:POINts:MODE", set=lambda args: _only(args, "NORMal", "RAW"), query=lambda _: "NORM"),
            Command(f"{wave}:BYTeorder", set=order, query=lambda _: "LSBF" if self._lsb_first else "MSBF"),
            Command(f"{wave}:UNSigned", set=_boolean, query=lambda _: "1"),
            Command(f"{wave}:PREamble", most=0, query=self._preamble),
            Command(f"{wave}:DATA", most=0, query=self._data, arbitrary=True),
            Command(f"{wave}:XINCrement", query=lambda _: _number(self._x_increment(self._picture()))),
            Command(f"{wave}:XORigin", query=lambda _: _number(self._x_origin(self._picture()))),
            Command(f"{wave}:YINCrement", query=lambda _: _number(self._y_scaling()[0])),
            Command(f"{wave}:YORigin", query=lambda _: _number(self._y_scaling()[1])),
            Command(f"{wave}:YREFerence", query=lambda _: f"{self._y_scaling()[2]:+d}"),
        ]

    def _other_commands(self) -> list[Command]:
        def kind(args: Args) -> None:
            self._kind = args.word("NORMal", "AVERage")
            self._waves.clear()

        def average(args: Args) -> None:
            self._average = args.integer(2, 4096)
            self._waves.clear()

        def complete(_: Args) -> str:
            return "0" if self._acquisition.picture is None else "100"

        return [
            Command("ACQuire:TYPE", set=kind, query=lambda _: self._kind),
            Command("ACQuire:COUNt", set=average, query=lambda _: f"{self._average:+d}"),
            Command("ACQuire:COMPlete", query=complete),
            Command("MEASure:VPP", query=self._measure(lambda volts: float(volts.max() - volts.min()))),
            Command("MEASure:VAVerage", query=self._measure(lambda volts: float(volts.mean()))),
            Command("MEASure:VMAX", query=self._measure(lambda volts: float(volts.max()))),
            Command("SYSTem:HEADer", set=_boolean, query=lambda _: "0"),
            Command("*OPT", most=0, query=lambda _: "0"),
        ]


def _only(args: Args, *names: str) -> None:
    args.word(*names)


def _boolean(args: Args) -> None:
    args.boolean()


def _number(value: float) -> str:
    return f"{value:+.6E}"
