"""QCoDeS instruments, unmodified, on a shared port.

Their parameters say themselves what they are: unit, label, whether they can be read and set, and what they accept. A
parameter is a thing that is called; here its name stands for its value, and ``dmm.trigger.count`` is found as QCoDeS
finds it. QCoDeS keeps a list of all instruments of a process, by name, and refuses a second of the same name; an
instrument that this family made and that has been given up is struck off it. QCoDeS is met through Any here, and
imported only by the driver's own module.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

from duodaq.errors import ConfigError, RefusedError
from duodaq.model import DriverMember, InstrumentDefinition
from duodaq.ports import visa_alias
from duodaq.v2._member import Member, set_member, value_or_member
from duodaq.v2.families._family import descends
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._names import refuse_missing, step
from duodaq.v2.families._plain import call_with, place_port, visa_arguments
from duodaq.v2.families._serial import SharedSerial
from duodaq.v2.families._surface import Limit, Measured, Surface

_BACKEND = "@duodaq"
_NO_UNIT = frozenset({"NA", "N/A", "a.u.", "arb. unit"})
"""What stands there for want of a unit."""
_HOSTED: weakref.WeakSet[Any] = weakref.WeakSet()


class QcodesFamily:
    """Subclasses of ``qcodes.instrument.Instrument``; those for VISA find the port by the backend ``@duodaq``."""

    name = "qcodes"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether `driver` is a QCoDeS instrument class."""
        return descends(driver, "qcodes", "Instrument")

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """The instrument, called as its stanza is unless `args` has a name."""
        del limit  # its parameters wait as long as the port lets them
        arguments = {"name": definition.id, **definition.args}
        if line is not None:
            arguments.update(_port_arguments(driver, definition, line))
        _free(str(arguments["name"]).replace("-", "_"), definition)
        made = call_with(driver, definition, arguments)
        _HOSTED.add(made)
        return QcodesSurface(made)


class QcodesSurface:
    """An instrument's parameters, those of its modules and channels, its functions and methods."""

    def __init__(self, instrument: Any) -> None:
        self.driver = instrument

    def members(self) -> tuple[Member, ...]:
        """All parameters; touches no hardware."""
        return tuple(_member(name, parameter) for name, parameter in _parameters(self.driver))

    def has(self, name: str) -> bool:
        try:
            self._at(name)
        except RefusedError:
            return False
        return True

    def describes(self, name: str) -> bool:
        try:
            found = self._at(name)
        except RefusedError:
            return False
        return _is_parameter(found) and bool(found.gettable)

    def unit(self, name: str) -> str:
        return _unit(self._at(name))

    def get(self, name: str) -> Any:
        found = self._at(name)
        return value_or_member(_read(found, name) if _is_parameter(found) else found)

    def part(self, name: str) -> Any:
        found = self._at(name)
        return DriverMember("parameter") if _is_parameter(found) else value_or_member(found)

    def measure(self, name: str) -> Measured:
        """The value in the unit that the parameter has then: some change theirs as they are read."""
        found = self._at(name)
        if not _is_parameter(found):
            return Measured(found)
        value = _read(found, name)
        axes = tuple(getattr(found, "setpoints", None) or ())
        if len(axes) == 1 and descends(type(found), "qcodes", "ParameterWithSetpoints"):
            return Measured((axes[0].get(), value), _unit(found), _unit(axes[0]))
        return Measured(value, _unit(found))

    def set(self, name: str, value: Any) -> None:
        found = self._at(name)
        if not _is_parameter(found):
            set_member(self.driver, name, value)
        elif not found.settable:
            raise RefusedError(f"{name} can be read, but not set", command=name)
        else:
            found.set(value)

    def method(self, name: str) -> Callable[..., Any]:
        """A method or function; a parameter is one too, as it is in QCoDeS."""
        found = self._at(name)
        if not callable(found):
            raise RefusedError(f"{name} of {type(self.driver).__name__} is a value, not a method", command=name)
        return found

    def close(self) -> None:
        """Close it, and let QCoDeS forget it even if that fails: its name is wanted again."""
        try:
            self.driver.close()
        finally:
            _forget(self.driver)

    def _at(self, name: str) -> Any:
        found = self.driver
        for part in name.split("."):
            try:
                found = step(found, part, name)
            except AttributeError:
                refuse_missing(self.driver, name, part, _known(found))
        return found


def _port_arguments(driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine) -> dict[str, Any]:
    placed: dict[str, Any] = dict(visa_arguments(definition, line))
    if descends(driver, "qcodes", "VisaInstrument"):
        if not placed and not {"address", "resource"} & definition.args.keys():
            placed["address"] = visa_alias(line.name)
        if placed and not {"visalib", "pyvisa_sim_file"} & definition.args.keys():
            placed["visalib"] = _BACKEND
    elif descends(driver, "qcodes", "IPInstrument"):
        raise ConfigError(
            f"{getattr(driver, '__name__', driver)} opens a TCP connection of its own, and shares no port",
            key=f"instruments.{definition.id}.port",
            remedy="Drop `port`, and give it address and port in `args`.",
        )
    if placed:
        return placed
    return dict(place_port(driver, definition, SharedSerial(line, definition.options.get("timeout_s"))))


def _free(name: str, definition: InstrumentDefinition) -> None:
    """Make sure that QCoDeS will take an instrument of that name."""
    kinds: Any = sys.modules["qcodes.instrument"].Instrument
    taken = kinds._all_instruments.get(name)
    if taken is None:
        return
    if taken not in _HOSTED:
        raise ConfigError(
            f'there is a QCoDeS instrument called "{name}" in this process already',
            key=f"instruments.{definition.id}.args.name",
            remedy='Give it another: args = { name = "…" }.',
        )
    _forget(taken)


def _forget(instrument: Any) -> None:
    kind = cast("Any", type(instrument))
    kind.remove_instance(instrument)


def _is_parameter(found: Any) -> bool:
    return descends(cast("type[Any]", type(found)), "qcodes", "ParameterBase")


def _read(parameter: Any, name: str) -> Any:
    if not parameter.gettable:
        raise RefusedError(f"{name} can be set, but not read", command=name)
    return parameter.get()


def _unit(found: Any) -> str:
    unit = str(getattr(found, "unit", "")) if _is_parameter(found) else ""
    return "" if unit in _NO_UNIT else unit


def _parameters(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, parameter in owner.parameters.items():
        yield f"{prefix}{name}", parameter
    for name, module in owner.submodules.items():
        if hasattr(module, "parameters"):
            yield from _parameters(module, f"{prefix}{name}.")
        else:
            for channel in module:
                yield from _parameters(channel, f"{prefix}{name}.{channel.short_name}.")


def _known(owner: Any) -> list[str]:
    tables = (getattr(owner, table, {}) for table in ("parameters", "submodules", "functions"))
    return [*(name for table in tables for name in table), *dir(owner)]


def _member(name: str, parameter: Any) -> Member:
    validator = getattr(parameter, "vals", None)
    return Member(
        name,
        readable=bool(parameter.gettable),
        settable=bool(parameter.settable),
        unit=_unit(parameter),
        doc=str(getattr(parameter, "label", "")),
        limits=_limits(validator),
        choices=_choices(validator),
    )


def _limits(validator: Any) -> tuple[float | None, float | None] | None:
    low, high = getattr(validator, "min_value", None), getattr(validator, "max_value", None)
    if low is None or high is None:
        return None
    found = tuple(float(end) if math.isfinite(end) else None for end in (low, high))
    return None if found == (None, None) else (found[0], found[1])


def _choices(validator: Any) -> tuple[Any, ...]:
    if not descends(cast("type[Any]", type(validator)), "qcodes", "Enum"):
        return ()
    return tuple(sorted(validator.values, key=lambda value: (type(value).__name__, value)))
