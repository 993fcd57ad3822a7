"""The commands that say what to measure and how: FUNCtion, RANGe, RESolution, NPLCycles and their kin."""

from __future__ import annotations

from collections.abc import Callable

from duodaq.sim.scpi._argument import Args, keyword_forms
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._meter import FunctionSettings, Meter
from duodaq.sim.scpi._profile import Function
from duodaq.sim.scpi._tree import Command

__all__ = ["find_function", "nr3", "sense_commands"]

_APERTURES_S = (0.01, 0.1, 1.0)
_APERTURE_LIMITS_S = (2e-5, 1.0)
_BANDWIDTHS_HZ = (3, 20, 200)
_WITHOUT_RESOLUTION = ("VOLT:RAT", "FREQ", "PER", "CONT", "DIOD", "CAP", "TEMP")


def nr3(value: float) -> str:
    """A number as these meters print it: ``+1.23456789E+00``."""
    return f"{value:+.8E}"


def find_function(functions: tuple[Function, ...], written: str) -> Function:
    """The function that a quoted name means, in any of its spellings.

    Raises:
        ScpiFault: -224 if the model has no such function.
    """
    words = [word for word in written.upper().strip().removeprefix(":").split(":") if word not in ("SENS", "SENSE")]
    for function in functions:
        if _spells(function.header, words):
            return function
    raise ScpiFault(-224)


def _spells(header: str, words: list[str]) -> bool:
    nodes = header.replace("[:", ":[").split(":")
    left = list(words)
    for node in nodes:
        forms = keyword_forms(node.strip("[]"))
        if left and left[0] in forms:
            left.pop(0)
        elif not node.startswith("["):
            return False
    return not left


def sense_commands(meter: Meter, change: Callable[[], None]) -> list[Command]:
    """Everything under ``SENSe``; `change` is called before a setting takes effect (it ends a running measurement)."""
    commands = [_function_command(meter, change), *_shared_commands(meter, change)]
    for function in meter.profile.functions:
        commands += _commands_of(meter, function, change)
    return commands


def _commands_of(meter: Meter, function: Function, change: Callable[[], None]) -> list[Command]:
    truevolt, header = meter.profile.truevolt, f"[SENSe:]{function.header}"
    commands: list[Command] = []
    if len(function.ranges) > 1 and function.name != "VOLT:RAT":
        commands += _range_commands(meter, function, change)
    if function.name not in _WITHOUT_RESOLUTION:
        commands.append(_resolution_command(meter, function, header, change))
    if function.integrates:
        commands.append(_nplc_command(meter, function, header, change))
    if function.aperture or (truevolt and function.integrates):
        commands += _aperture_commands(meter, function, header, change)
    if truevolt and function.integrates:
        commands.append(_autozero_command(meter, f"{header}:ZERO:AUTO", (function.name,), change))
    if truevolt and function.name.endswith(":AC"):
        commands.append(_bandwidth_command(meter, f"{header}:BANDwidth", change))
    return commands


def _function_command(meter: Meter, change: Callable[[], None]) -> Command:
    def assign(args: Args) -> None:
        function = find_function(meter.profile.functions, args.text())
        change()
        meter.select(function.name)

    return Command("[SENSe:]FUNCtion[:ON]", set=assign, query=lambda _: f'"{meter.function.name}"')


def _range_commands(meter: Meter, function: Function, change: Callable[[], None]) -> list[Command]:
    ranges, header = function.ranges, f"[SENSe:]{function.range_header or function.header}:RANGe"
    usual = function.usual_range

    def setting() -> FunctionSettings:
        return meter.settings[function.name]  # looked up each time: *RST replaces them

    def assign(args: Args) -> None:
        wanted = args.number(0.0, ranges[-1], usual, unit=function.unit)  # less than the smallest range gets that
        change()
        meter.set_range(function, wanted)

    def read(args: Args) -> str:
        limit = args.limit(ranges[0], ranges[-1], usual)
        return nr3(setting().range_value if limit is None else limit)

    def assign_auto(args: Args) -> None:
        on = True if args.next_is_word("ONCE") else args.boolean()
        change()
        setting().autorange = on

    return [
        Command(f"{header}[:UPPer]", set=assign, query=read),
        Command(f"{header}:AUTO", set=assign_auto, query=lambda _: f"{setting().autorange:d}"),
    ]


def _resolution_command(meter: Meter, function: Function, header: str, change: Callable[[], None]) -> Command:
    def limits() -> tuple[float, float]:
        fractions, span = meter.profile.nplc.values(), meter.settings[function.name].range_value
        return min(fractions) * span, max(fractions) * span

    def assign(args: Args) -> None:
        wanted = args.number(limits()[0], meter.settings[function.name].range_value, unit=function.unit)
        change()
        meter.set_resolution(function, wanted)

    def read(args: Args) -> str:
        limit = args.limit(*limits())
        return nr3(meter.resolution(function) if limit is None else limit)

    return Command(f"{header}:RESolution", set=assign, query=read)


def _nplc_command(meter: Meter, function: Function, header: str, change: Callable[[], None]) -> Command:
    low, high = min(meter.profile.nplc), max(meter.profile.nplc)

    def assign(args: Args) -> None:
        wanted = args.number(low, high, 10.0)
        change()
        meter.set_nplc(function, wanted)
        meter.settings[function.name].aperture_enabled = False

    def read(args: Args) -> str:
        limit = args.limit(low, high, 10.0)
        return nr3(meter.settings[function.name].nplc if limit is None else limit)

    return Command(f"{header}:NPLCycles", set=assign, query=read)


def _aperture_commands(meter: Meter, function: Function, header: str, change: Callable[[], None]) -> list[Command]:

    def setting() -> FunctionSettings:
        return meter.settings[function.name]  # looked up each time: *RST replaces them

    low, high = (_APERTURES_S[0], _APERTURES_S[-1]) if function.aperture else _APERTURE_LIMITS_S

    def assign(args: Args) -> None:
        wanted = args.number(low, high, 0.1, unit="S")
        change()
        if function.aperture:
            wanted = next(value for value in _APERTURES_S if value >= wanted * (1 - 1e-9))
        setting().aperture_s, setting().aperture_enabled = wanted, True

    def read(args: Args) -> str:
        limit = args.limit(low, high, 0.1)
        return nr3(setting().aperture_s if limit is None else limit)

    def enable(args: Args) -> None:
        on = args.boolean()
        change()
        setting().aperture_enabled = on

    commands = [Command(f"{header}:APERture", set=assign, query=read)]
    if not function.aperture:
        commands.append(
            Command(f"{header}:APERture:ENABled", set=enable, query=lambda _: f"{setting().aperture_enabled:d}")
        )
    return commands


def _shared_commands(meter: Meter, change: Callable[[], None]) -> list[Command]:
    integrating = tuple(function.name for function in meter.profile.functions if function.integrates)

    def impedance(args: Args) -> None:
        meter.high_impedance = args.boolean()

    impedance_header = "[SENSe:]VOLTage[:DC]:IMPedance:AUTO" if meter.profile.truevolt else "INPut:IMPedance:AUTO"
    return [
        _autozero_command(meter, "[SENSe:]ZERO:AUTO", integrating, change),
        _bandwidth_command(meter, "[SENSe:]DETector:BANDwidth", change),
        Command(impedance_header, set=impedance, query=lambda _: f"{meter.high_impedance:d}"),
    ]


def _autozero_command(meter: Meter, header: str, names: tuple[str, ...], change: Callable[[], None]) -> Command:
    def assign(args: Args) -> None:
        on = False if args.next_is_word("ONCE") else args.boolean()
        change()
        for name in names:
            meter.settings[name].autozero = on

    def read(_: Args) -> str:
        name = meter.function.name if meter.function.name in names else names[0]
        return f"{meter.settings[name].autozero:d}"

    return Command(header, set=assign, query=read)


def _bandwidth_command(meter: Meter, header: str, change: Callable[[], None]) -> Command:
    def assign(args: Args) -> None:
        lowest = args.number(_BANDWIDTHS_HZ[0], 300_000, 20, unit="HZ")
        change()
        meter.bandwidth_hz = max(value for value in _BANDWIDTHS_HZ if value <= lowest)

    def read(args: Args) -> str:
        limit = args.limit(_BANDWIDTHS_HZ[0], _BANDWIDTHS_HZ[-1], 20)
        return nr3(meter.bandwidth_hz if limit is None else limit)

    return Command(header, set=assign, query=read)
