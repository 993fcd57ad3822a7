"""Ophyd-async devices, unmodified, on an event loop of their own beside the driver's thread.

All that is awaited is awaited there, under the deadline of the call; names and units are found as ophyd's are.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar, cast

from duodaq.errors import RefusedError
from duodaq.model import DriverMember, InstrumentDefinition
from duodaq.v2._member import Member, set_member, value_or_member
from duodaq.v2.families._described import field_of, measured, member_of, unit_of, values_of
from duodaq.v2.families._device_loop import DeviceLoop
from duodaq.v2.families._family import descends
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._names import refuse_missing, step
from duodaq.v2.families._ophyd import device_arguments
from duodaq.v2.families._plain import call_with, close_by_name
from duodaq.v2.families._surface import Limit, Measured, Surface

T = TypeVar("T")
_CONNECT_S = 3600.0


class OphydAsyncFamily:
    """Subclasses of ``ophyd_async.core.Device``."""

    name = "ophyd_async"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether `driver` is an ophyd-async class."""
        return descends(driver, "ophyd_async", "Device")

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """The device, called as its stanza is unless `args` has a name, connected."""
        arguments = device_arguments(driver, definition, line)
        loop = DeviceLoop(f"v2-{definition.id}")
        try:
            made = loop.run(lambda: _make(driver, definition, arguments, limit()), limit(), "connect")
            return OphydAsyncSurface(made, loop, limit)
        except BaseException:
            loop.close()
            raise


class OphydAsyncSurface:
    """A device's signals and parts by their dotted names, and its fields by theirs."""

    def __init__(self, device: Any, loop: DeviceLoop, limit: Limit) -> None:
        self.driver = device
        self._loop = loop
        self._limit = limit
        self._fields = {part.name: name for name, part in _parts(device)} | {device.name: ""}

    def members(self) -> tuple[Member, ...]:
        """Its signals; each is asked to describe itself."""
        return self._await(self._members, "describe")

    def has(self, name: str) -> bool:
        try:
            self._at(name)
        except RefusedError:
            return False
        return True

    def describes(self, name: str) -> bool:
        try:
            return _is_readable(self._at(name))
        except RefusedError:
            return False

    def unit(self, name: str) -> str:
        found = self._at(name)
        if not _is_readable(found):
            return ""

        async def describe() -> str:
            described = await found.describe()
            return unit_of(described[field_of(name, described, _hinted(found))])

        return self._await(describe, name)

    def get(self, name: str) -> Any:
        found = self._at(name)
        if not _is_readable(found):
            return DriverMember("object") if _is_part(found) else value_or_member(found)

        async def read() -> Any:
            return values_of(await found.read())

        return self._await(read, name)

    def part(self, name: str) -> Any:
        found = self._at(name)
        return DriverMember("object") if _is_part(found) else value_or_member(found)

    def measure(self, name: str) -> Measured:
        """Trigger it if it can be, and read it, as a scan does."""
        found = self._at(name)
        if not _is_readable(found):
            return Measured(found)

        async def measure() -> Measured:
            if hasattr(found, "trigger"):
                await found.trigger()
            return measured(name, await found.read(), await found.describe(), _hinted(found))

        return self._await(measure, name)

    def set(self, name: str, value: Any) -> None:
        found = self._at(name)
        if not _is_part(found):
            set_member(self.driver, name, value)
            return
        if not hasattr(found, "set"):
            raise RefusedError(f"{name} can be read, but not set", command=name)

        async def move() -> None:
            await found.set(value)

        self._await(move, name)

    def method(self, name: str) -> Callable[..., Any]:
        method = self._at(name)
        if not callable(method):
            raise RefusedError(f"{name} of {type(self.driver).__name__} is a value, not a method", command=name)

        def call(*args: Any, **kwargs: Any) -> Any:
            async def work() -> Any:
                result = method(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            result = self._await(work, name)
            return value_or_member(result)

        return call

    def close(self) -> None:
        """Close it as its own class says, if it does, and end its loop."""

        async def close() -> None:
            close_by_name(self.driver)

        try:
            self._await(close, "close")
        finally:
            self._loop.close()

    async def _members(self) -> tuple[Member, ...]:
        found = [(name, signal) for name, signal in _parts(self.driver) if _is_signal(signal) and _is_readable(signal)]
        described = await asyncio.gather(*(signal.describe() for _, signal in found))
        return tuple(
            member_of(name, keys.get(signal.name, {}), settable=hasattr(signal, "set"))
            for (name, signal), keys in zip(found, described, strict=True)
        )

    def _await(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        return self._loop.run(make, self._limit(), name)

    def _at(self, name: str) -> Any:
        found = self.driver
        path = self._fields.get(name, name)
        for part in path.split(".") if path else ():
            children = dict(found.children()) if _is_part(found) else {}
            try:
                found = children[part] if part in children else step(found, part, name)
            except AttributeError:
                refuse_missing(self.driver, name, part, [*self._fields, *children, *dir(found)])
        return found


async def _make(
    driver: Callable[..., Any], definition: InstrumentDefinition, arguments: dict[str, Any], left_s: float
) -> Any:
    device = call_with(driver, definition, arguments)
    if not device.name:
        device.set_name(definition.id)
    await device.connect(timeout=left_s if math.isfinite(left_s) else _CONNECT_S)
    return device


def _parts(device: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in device.children():
        yield f"{prefix}{name}", child
        yield from _parts(child, f"{prefix}{name}.")


def _is_part(found: Any) -> bool:
    return descends(cast("type[Any]", type(found)), "ophyd_async", "Device")


def _is_signal(found: Any) -> bool:
    return descends(cast("type[Any]", type(found)), "ophyd_async", "Signal")


def _is_readable(found: Any) -> bool:
    return _is_part(found) and hasattr(found, "read") and hasattr(found, "describe")


def _hinted(found: Any) -> list[str]:
    hints: Mapping[str, Any] = getattr(found, "hints", None) or {}
    return list(hints.get("fields", ()))
