"""Ophyd devices, unmodified: what they read and in which unit, they describe; what they are set to, a status tells.

A device reads several fields, each under a name of its own (``stage_readback``) and from a signal (``stage.readback``).
Both names are understood here; the device's own name stands for the field that it hints at. A status is waited for no
longer than the call that began it may take: then the driver's thread is free again, and what was begun goes on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from duodaq.errors import RefusedError, ReplyTimeoutError
from duodaq.model import DriverMember, Fate, InstrumentDefinition
from duodaq.v2._member import Member, set_member, value_or_member
from duodaq.v2.families._described import measured, member_of, unit_of, values_of
from duodaq.v2.families._family import descends
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._names import refuse_missing, step
from duodaq.v2.families._plain import call_with, close_by_name, place_port, signature_of, visa_arguments
from duodaq.v2.families._serial import SharedSerial
from duodaq.v2.families._surface import Limit, Measured, Surface


class OphydFamily:
    """Subclasses of ``ophyd.Device`` and ``ophyd.Signal``."""

    name = "ophyd"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether `driver` is an ophyd class."""
        return descends(driver, "ophyd", "OphydObject")

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """The device, called as its stanza is unless `args` has a name, once all its signals are connected."""
        arguments = device_arguments(driver, definition, line)
        surface = OphydSurface(call_with(driver, definition, arguments), limit)
        try:
            surface.connect()
        except BaseException:
            surface.close()
            raise
        return surface


class OphydSurface:
    """A device's signals and parts by their dotted names, and its fields by theirs."""

    def __init__(self, device: Any, limit: Limit) -> None:
        self.driver = device
        self._limit = limit
        self._fields: dict[str, str] = {}

    def connect(self) -> None:
        """Wait until it is connected, and learn the names of its fields."""
        waits = getattr(self.driver, "wait_for_connection", None)
        if waits is not None:
            waits(timeout=self._left_s())
        self._fields = {signal.name: name for name, signal in _signals(self.driver)} | {self.driver.name: ""}

    def members(self) -> tuple[Member, ...]:
        """Its signals, except those that would be made only when somebody asks for them; each describes itself."""
        return tuple(
            member_of(name, _description(signal), settable=_settable(signal)) for name, signal in _signals(self.driver)
        )

    def has(self, name: str) -> bool:
        try:
            self._at(name)
        except RefusedError:
            return False
        return True

    def describes(self, name: str) -> bool:
        try:
            return _is_part(self._at(name))
        except RefusedError:
            return False

    def unit(self, name: str) -> str:
        found = self._at(name)
        if not hasattr(found, "describe"):
            return ""
        described = found.describe()
        return measured(name, {field: {"value": None} for field in described}, _with_unit(found), _hinted(found)).unit

    def get(self, name: str) -> Any:
        found = self._at(name)
        return values_of(found.read()) if _is_part(found) else value_or_member(found)

    def part(self, name: str) -> Any:
        found = self._at(name)
        return DriverMember("object") if _is_part(found) else value_or_member(found)

    def measure(self, name: str) -> Measured:
        """Trigger it if it can be, and read it, as a scan does."""
        found = self._at(name)
        if not _is_part(found):
            return Measured(found)
        if hasattr(found, "trigger"):
            self._wait(found.trigger(), name)
        return measured(name, found.read(), _with_unit(found), _hinted(found))

    def set(self, name: str, value: Any) -> None:
        found = self._at(name)
        if not _is_part(found):
            set_member(self.driver, name, value)
        elif not _settable(found):
            raise RefusedError(f"{name} can be read, but not set", command=name)
        else:
            self._wait(found.set(value), name)

    def method(self, name: str) -> Callable[..., Any]:
        method = self._at(name)
        if not callable(method):
            raise RefusedError(f"{name} of {type(self.driver).__name__} is a value, not a method", command=name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self._wait(result, name) if _is_status(result) else result

        return call

    def close(self) -> None:
        """Close it as its own class says, if it does, and give its signals up."""
        try:
            close_by_name(self.driver)
        finally:
            self.driver.destroy()

    def _at(self, name: str) -> Any:
        found = self.driver
        path = self._fields.get(name, name)
        for part in path.split(".") if path else ():
            try:
                found = step(found, part, name)
            except AttributeError:
                refuse_missing(self.driver, name, part, [*self._fields, *dir(found)])
        return found

    def _wait(self, status: Any, name: str) -> None:
        try:
            status.wait(timeout=self._left_s())
        except Exception as error:
            if type(error).__name__ != "WaitTimeoutError":
                raise
            raise ReplyTimeoutError(
                "it is not done in time", fate=Fate.UNKNOWN, command=name, left="what was begun goes on"
            ) from error

    def _left_s(self) -> float | None:
        left_s = self._limit()
        return left_s if math.isfinite(left_s) else None


def device_arguments(
    driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None
) -> dict[str, Any]:
    """What a device is constructed with: its name, and the port where the stanza puts it."""
    arguments = dict(definition.args)
    if line is not None and (addresses := visa_arguments(definition, line)):
        arguments.update(addresses)
    elif line is not None:
        arguments.update(place_port(driver, definition, SharedSerial(line, definition.options.get("timeout_s"))))
    kinds = {parameter.kind for parameter in signature_of(driver).parameters.values()}
    if "name" in signature_of(driver).parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        arguments.setdefault("name", definition.id)
    return arguments


def _signals(device: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(device, "walk_signals"):
        return
    for walked in device.walk_signals(include_lazy=False):
        yield walked.dotted_name, walked.item


def _is_part(found: Any) -> bool:
    return descends(cast("type[Any]", type(found)), "ophyd", "OphydObject")


def _is_status(found: Any) -> bool:
    return descends(cast("type[Any]", type(found)), "ophyd", "StatusBase")


def _settable(found: Any) -> bool:
    if descends(cast("type[Any]", type(found)), "ophyd", "Signal"):
        return bool(found.write_access) and not descends(cast("type[Any]", type(found)), "ophyd", "SignalRO")
    return hasattr(found, "set")


def _hinted(found: Any) -> list[str]:
    hints: Mapping[str, Any] = getattr(found, "hints", None) or {}
    return list(hints.get("fields", ()))


def _description(signal: Any) -> Mapping[str, Any]:
    return _with_unit(signal).get(signal.name, {})


def _with_unit(found: Any) -> dict[str, dict[str, Any]]:
    """What it describes; a positioner that has its unit as ``egu`` alone means the field it hints at."""
    described = {field: dict(key) for field, key in found.describe().items()}
    egu = str(getattr(found, "egu", "") or "")
    for field in _hinted(found) if egu else ():
        if field in described and not unit_of(described[field]):
            described[field]["egu"] = egu
    return described
