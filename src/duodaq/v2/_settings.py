from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.errors import DuodaqError
from duodaq.model import (
    Command,
    DriverMember,
    Execute,
    GetParameter,
    InstrumentDefinition,
    Measurement,
    Parameters,
    Scalar,
    SetParameter,
    is_polled_call,
)
from duodaq.telemetry import get_logger
from duodaq.v2._reading import split_unit
from duodaq.v2._rules import may_move, settings_for_reconnect

AT_START = "not set at its start, for a stop was latched"
AT_RECONNECTION = "not set again after the reconnection"
_LOG = get_logger("v2.settings")


class WatchedSettings:
    """What an instrument's settings are, as far as its driver told: kept in the parameter table.

    `asked` is what was set since it started, `waiting` what a reconnection withheld until somebody says Recover.
    """

    def __init__(self, definition: InstrumentDefinition, parameters: Parameters) -> None:
        self.names = tuple(dict.fromkeys((*definition.watched, *definition.settings)))
        self.asked: dict[str, Any] = {}
        self.waiting: dict[str, Any] = {}
        self.withheld: list[str] = []
        """What the last reconnection did not set again, or the start under a stop not at all, and nobody since."""
        self._applied: list[str] = []
        self._stopped: set[str] = set()
        self._found: dict[str, Any] = {}
        """Of what was withheld, what it read when it was first read after that."""
        self._when = AT_START
        self._told: dict[str, Any] = {}
        """What was put into the table since all of it was called stale."""
        self._definition = definition
        self._id = definition.id
        self._parameters = parameters

    def at_first(self, *, latched: bool) -> dict[str, Any]:
        """What is set when it starts: what the stanza gives; while a stop is latched only what is passive of it.

        The rest waits until somebody says Recover, whoever has reset the stop.
        """
        given = self._definition.settings
        chosen = {n: v for n, v in given.items() if not (latched and may_move(self._definition, SetParameter(n, v)))}
        self.waiting = {name: value for name, value in given.items() if name not in chosen}
        self.withheld, self._applied, self._stopped = list(self.waiting), [], set(self.waiting)
        self._when = AT_START
        self._found.clear()
        return chosen

    def again(self, *, latched: bool) -> dict[str, Any]:
        """What is to be set again after a reconnection; that, and what is withheld, is logged once it is there.

        Withheld until somebody says Recover is what the policy "ask" asks for, and what another would have applied if
        nothing had been stopped.
        """
        again, withheld = settings_for_reconnect(self._definition, self.asked, latched=latched, undone=self._stopped)
        by_policy, _ = settings_for_reconnect(self._definition, self.asked, latched=False)
        wanted = {**self._definition.settings, **self.asked}
        asks = self._definition.options.get("on_reconnect") == "ask"
        self.waiting = {name: wanted[name] for name in withheld if asks or name in by_policy}
        self.withheld, self._applied = withheld, list(again)
        self._found.clear()
        self._when = AT_RECONNECTION
        return again

    def connected(self, values: dict[str, Any]) -> None:
        """The driver is there, and has been given what was to be set; `values` are those just read back."""
        if self._applied or self.withheld:
            facts = {"applied": self._applied, "withheld": self.withheld}
            event = (
                "settings after reconnect" if self._when == AT_RECONNECTION else "settings withheld: a stop is latched"
            )
            _LOG.warning(event, instrument=self._id, **facts)
        self.accept(values)

    @property
    def outstanding(self) -> str:
        """For a person: what the start or the last reconnection withheld, as long as nobody has set it; else empty."""
        if not self.withheld:
            return ""
        by_itself = all(name in self.waiting for name in self.withheld)
        remedy = "Recover sets it; " if by_itself else ""
        return f"{self._when}: {', '.join(self.withheld)}; {remedy}said until it is set"

    def note_stop(self) -> None:
        """What moves or emits of it was stopped: a reconnection sets none of that again, whoever has reset the stop."""
        self._stopped |= self._definition.settings.keys() | self.asked.keys()

    def note(self, command: SetParameter | GetParameter, value: Any) -> None:
        """A setting has been set (`value` is what the device accepted) or read."""
        if isinstance(value, DriverMember):
            return
        if isinstance(command, SetParameter):
            self.asked[command.name] = command.value
            self._stopped.discard(command.name)
            self._is_set(command.name)
        if isinstance(command, SetParameter) or command.name in self.names or command.name in self.asked:
            self._put(command.name, value)

    def note_call(self, command: Command, plain: Callable[[tuple[str, ...]], dict[str, Any]]) -> None:
        """A method has been called, and may have set anything: what is known is stale until it is read.

        What `plain` has of it, without asking the device, is known anew.
        """
        if not self._told or not isinstance(command, Execute) or is_polled_call(self._definition, command):
            return
        held = plain(tuple(dict.fromkeys((*self.names, *self.asked))))
        if self._told.keys() - held.keys():
            self._told.clear()
            self._parameters.mark_stale("v2", self._id)
        self.accept({name: value for name, value in held.items() if not _is_same(self._told.get(name), value)})

    def to_read_after(self, command: Command) -> tuple[str, ...]:
        """What is to be read when `command` is done: a setting may change others, and a call what was withheld.

        A passive call sets nothing: what reads otherwise after one only reads otherwise, as what is measured does.
        """
        if isinstance(command, SetParameter):
            return tuple(name for name in self.names if name != command.name)
        sets = isinstance(command, Execute) and may_move(self._definition, command)
        return self.names if sets and any(name in self.names for name in self.withheld) else ()

    def read_after(self, values: dict[str, Any]) -> None:
        """Those were read after a command: what is as it was wanted, or otherwise than it was found, has been set."""
        self.accept(values)
        wanted = {**self._definition.settings, **self.asked}
        for name in [one for one in self.withheld if one in values]:
            value = split_unit(values[name])[0]
            as_wanted = name in wanted and _is_equal(value, wanted[name])
            if as_wanted or (name in self._found and not _is_equal(value, self._found[name])):
                self._is_set(name)

    def note_reading(self, name: str, measurement: Measurement) -> None:
        """A polled value that is also watched."""
        if name in self.names and isinstance(measurement, Scalar):
            self._put(name, measurement.value, measurement.unit)

    def applied(self, values: dict[str, Any]) -> None:
        """What waited has been set; `values` are those just read back."""
        self._stopped -= self.waiting.keys()
        self.withheld = [name for name in self.withheld if name not in self.waiting]
        self.waiting = {}
        self.accept(values)

    def accept(self, values: dict[str, Any]) -> None:
        """Values as just read back."""
        for name, value in values.items():
            self._put(name, value)

    def _is_set(self, name: str) -> None:
        """Whatever a reconnection withheld of it has been overtaken."""
        self.waiting.pop(name, None)
        self.withheld = [one for one in self.withheld if one != name]

    def _put(self, name: str, value: Any, unit: str = "") -> None:
        plain, own_unit = split_unit(value)
        self._told[name] = value
        if name in self.withheld and isinstance(plain, bool | int | float | str):
            self._found.setdefault(name, plain)
        try:
            self._parameters.put("v2", self._id, name, plain, own_unit or unit)
        except DuodaqError as error:
            _LOG.warning("not in the parameter table", instrument=self._id, name=name, error=str(error))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same for certain; one that may have changed inside is not."""
    return type(one) is type(other) and isinstance(one, bool | int | float | str) and one == other


def _is_equal(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, of whatever type of number."""
    return isinstance(one, bool | int | float | str) and isinstance(other, bool | int | float | str) and one == other
