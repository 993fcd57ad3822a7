from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from duodaq.v2._member import Member

Limit = Callable[[], float]
"""Seconds that are left to the call in hand; ``inf`` if it may take as long as it likes."""


class Measured(NamedTuple):
    """What a driver measured: a number, an array, or a pair of axis and values; each in which unit, if it says so."""

    value: Any
    unit: str = ""
    axis_unit: str = ""


class Surface(Protocol):
    """One driver as its family knows it: what of it can be read, set and called, each under its dotted name.

    All of it in the driver's thread. Whatever takes a name raises RefusedError, before anything is sent, if the driver
    has nothing of that name that could be used so.
    """

    @property
    def driver(self) -> Any:
        """The driver itself."""
        ...

    def members(self) -> tuple[Member, ...]:
        """What can be read, set and called, as far as that is known before anybody asks."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        ...

    def describes(self, name: str) -> bool:
        """Whether the driver itself says that it measures `name`, so that it needs no stanza to be read."""
        ...

    def unit(self, name: str) -> str:
        """The unit in which the driver says that it reads `name`; empty if it says nothing."""
        ...

    def get(self, name: str) -> Any:
        """The value of `name`, or what it is if it is none."""
        ...

    def part(self, name: str) -> Any:
        """As `get`, but of a parameter or signal only that it is one; it is not read."""
        ...

    def measure(self, name: str) -> Measured:
        """What `name` reads now, for a measurement."""
        ...

    def set(self, name: str, value: Any) -> None:
        """Set `name`, and wait until that is done."""
        ...

    def method(self, name: str) -> Callable[..., Any]:
        """What `name` calls; the call waits for what it has begun."""
        ...

    def close(self) -> None:
        """Let go of the device without changing any output of it."""
        ...
