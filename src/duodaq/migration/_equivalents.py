"""What a name of a V2 driver is called in V4: the one table that conversion, handover and shadow read.

A name is a dotted attribute or a method of the V2 driver. `Equivalents.parameter` is what V4 reads or sets under it,
`command` what V4 does for a command to it. Of a class that is not listed the plain rules below hold: the same name, or
the same name without ``read_``, ``get_`` or ``set_``. What an actor of a lab's own has is read from its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duodaq.migration._declared import declared_by
from duodaq.model import Command, Execute, GetParameter, InstrumentDefinition, SetParameter

_VERB = re.compile(r"^(?:read|get|set|measure)_")
BY_CODEC: dict[str, str] = {
    "ell14": "duodaq:Elliptec",
    "esp300": "duodaq:Esp300",
    "maitai": "duodaq:MaiTai",
    "newport1830c": "duodaq:Newport1830C",
    "scpi": "duodaq:ScpiActor",
}
"""The V4 driver of whatever stands on a port with this codec."""


@dataclass(frozen=True, slots=True)
class Equivalents:
    """How one V2 driver's names are called in V4.

    Attributes:
        driver: The V4 driver.
        parameters: V2 name → V4 parameter.
        queries: V2 name → what a poll of a V4 ScpiActor reads.
        channels: V4 parameter → the channel that the actor has of itself, and the argument that is its rate.
        axes: V2 attribute → number of the axis behind it.
        calls: V2 method → V4 operation, with the arguments that go before the caller's.
        known: V4's parameters.
        emits: V4 parameters that are never handed over, because setting them moves or emits.
        polled: Channel that an actor of a lab's own polls by itself → what a poll of the lab file would ask.
        told: Whether it is known at all what the driver has.
    """

    driver: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    queries: Mapping[str, str] = field(default_factory=dict[str, str])
    channels: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    axes: Mapping[str, int] = field(default_factory=dict[str, int])
    calls: Mapping[str, str] = field(default_factory=dict[str, str])
    known: frozenset[str] = frozenset()
    emits: frozenset[str] = frozenset()
    polled: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    told: bool = True

    @property
    def lacks(self) -> str:
        """Why there is nothing of a name."""
        if self.told:
            return f"{self.driver} has nothing of that name"
        return f"what {self.driver} has cannot be read from its file"

    def parameter(self, name: str) -> str | None:
        """The V4 parameter that V2 calls `name`; None if there is none."""
        if name in self.parameters:
            return self.parameters[name]
        axis, dot, rest = name.partition(".")
        if dot and self.axes:
            return name if axis in self.axes and rest in _AXIS_PARAMETERS else None
        bare = _VERB.sub("", name)
        for wanted in (name, bare, *(known for known in self.known if known.rpartition("_")[0] == bare)):
            if wanted in self.known:
                return wanted
        return None

    def moves(self, parameter: str) -> bool:
        """Whether setting a V4 parameter moves or emits."""
        return bool({parameter, parameter.rpartition(".")[2]} & self.emits)


_AXIS_PARAMETERS = frozenset({"position", "enabled", "velocity", "acceleration", "deceleration"})
_METER = frozenset({"power", "wavelength_nm", "unit", "range", "filter"})
_ESP300 = Equivalents(
    "duodaq:Esp300", axes={"x": 1, "y": 2, "phi": 3, "z": 3}, emits=frozenset({"position", "enabled"})
)
_HP34401A = Equivalents(
    "duodaq:ScpiActor",
    queries={
        "reading": "READ?",
        "voltage_dc": "MEAS:VOLT:DC? DEF,DEF",
        "voltage_ac": "MEAS:VOLT:AC? DEF,DEF",
        "current_dc": "MEAS:CURR:DC? DEF,DEF",
        "current_ac": "MEAS:CURR:AC? DEF,DEF",
        "resistance": "MEAS:RES? DEF,DEF",
        "resistance_4w": "MEAS:FRES? DEF,DEF",
    },
)
BY_CLASS: dict[str, Equivalents] = {
    "pymeasure.instruments.newport:ESP300": _ESP300,
    "pymeasure.instruments.newport.esp300:ESP300": _ESP300,
    "pymeasure.instruments.hp:HP34401A": _HP34401A,
    "pymeasure.instruments.hp.hp34401A:HP34401A": _HP34401A,
}
_BY_DRIVER: dict[str, Equivalents] = {
    "duodaq:Esp300": _ESP300,
    "duodaq:Newport1830C": Equivalents(
        "duodaq:Newport1830C", channels={"power": ("power", "rate_hz")}, known=_METER,
        parameters={"wavelength": "wavelength_nm"},
        calls={"set_wavelength": "set_wavelength"},
    ),
    "duodaq:MaiTai": Equivalents(
        "duodaq:MaiTai", known=frozenset({"wavelength_nm", "power_w", "percent_warm", "shutter"}),
        emits=frozenset({"shutter", "emission"}),
    ),
    "duodaq:ScpiActor": Equivalents("duodaq:ScpiActor"),
    "duodaq:Elliptec": Equivalents("duodaq:Elliptec", emits=frozenset({"position"})),
}  # fmt: skip


def equivalents_of(
    driver: str, codec: str | None, wanted: str | None = None, directory: Path | None = None
) -> Equivalents | None:
    """What of the V2 `driver` on a port with `codec` V4 has; None if it has no driver for it.

    Args:
        driver: V2's, as the lab file names it.
        codec: Of its port.
        wanted: The V4 driver, where somebody names one: an actor of the lab's own, for instance.
        directory: Where a driver's file is looked for.
    """
    if wanted is not None:
        known = equivalents_of(driver, codec)
        return _BY_DRIVER.get(wanted) or _own(wanted, known, directory) or Equivalents(wanted, told=False)
    if driver in BY_CLASS:
        return BY_CLASS[driver]
    found = BY_CODEC.get(codec or "")
    return None if found is None else _BY_DRIVER.get(found)


def command_in_v4(command: Command, equivalents: Equivalents) -> Command | None:
    """The command to the V4 driver that does what `command` does to the V2 driver; None if there is none."""
    match command:
        case SetParameter():
            name = equivalents.parameter(command.name)
            return None if name is None else SetParameter(name, command.value)
        case GetParameter():
            name = equivalents.parameter(command.name)
            return None if name is None or command.part else GetParameter(name)
        case Execute():
            return _called(command, equivalents)
        case _:
            return command


def _called(command: Execute, equivalents: Equivalents) -> Command | None:
    axis, dot, method = command.name.partition(".")
    if dot and axis in equivalents.axes:
        if method in ("enable", "disable"):
            return Execute("enable", (axis, method == "enable"))
        return Execute("home", (axis,)) if method == "home" else None
    if command.name in equivalents.calls:
        return Execute(equivalents.calls[command.name], command.args, command.kwargs)
    name = equivalents.parameter(command.name)
    if name is None or command.kwargs:
        return None
    if not command.args:
        return GetParameter(name)
    return SetParameter(name, command.args[0]) if len(command.args) == 1 else None


def handed_over(
    values: Mapping[str, Any], old: InstrumentDefinition, new: InstrumentDefinition, equivalents: Equivalents
) -> dict[str, Any]:
    """The settings that go with an instrument, under its new owner's names: never what moves or emits.

    To V4 goes what V2 knew and V4 has; to V2 what its own stanza names as a setting.

    Args:
        values: What the parameter table has of the old owner, by its names.
        old: Where the instrument comes from.
        new: Where it goes.
        equivalents: What V2's names are called in V4.
    """
    if new.runtime == "v4":
        pairs = ((equivalents.parameter(name), value) for name, value in values.items())
        return {name: value for name, value in pairs if name is not None and not equivalents.moves(name)}
    named = dict.fromkeys((*new.settings, *new.watched))
    found = ((name, equivalents.parameter(name)) for name in named)
    return {name: values[p] for name, p in found if p is not None and p in values and not equivalents.moves(p)}


def equivalents_between(v2: InstrumentDefinition, codec: str | None, v4: InstrumentDefinition) -> Equivalents:
    """The equivalents of two definitions of one instrument.

    An actor of the lab's own has the names that its file tells, and where that cannot be told those of its kind.
    """
    known, wanted = equivalents_of(str(v2.driver), codec), str(v4.driver)
    if wanted in _BY_DRIVER:
        return known if known is not None and known.driver == wanted else _BY_DRIVER[wanted]
    return _own(wanted, known, v4.base_dir) or known or Equivalents(wanted, told=False)


def _own(driver: str, kind: Equivalents | None, directory: Path | None) -> Equivalents | None:
    """What an actor of a lab's own declares, and which V2 names its kind has for that; None if it cannot be told."""
    declared = declared_by(driver, directory)
    if declared is None:
        return None
    known = frozenset(declared.parameters)
    asked = {channel: how.get("read", "") for channel, how in declared.channels.items()}
    names = {**({} if kind is None else kind.parameters), **asked}
    return Equivalents(
        driver,
        parameters={name: wanted for name, wanted in names.items() if wanted in known and name not in known},
        calls={name: name for name in declared.operations},
        known=known,
        emits=frozenset(name for name, emits in declared.parameters.items() if emits),
        polled=declared.channels,
    )
