from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duodaq.v2._member import Member, find_method, has_member, members_of, read_member, set_member, value_or_member
from duodaq.v2.families._surface import Measured


class AttributeSurface:
    """A driver whose attributes are its values and whose methods are what it does: it says no more of itself."""

    def __init__(self, driver: Any, close: Callable[[Any], None]) -> None:
        self.driver = driver
        self._close = close

    def members(self) -> tuple[Member, ...]:
        return members_of(self.driver)

    def has(self, name: str) -> bool:
        return has_member(self.driver, name)

    def describes(self, name: str) -> bool:
        """Never: an attribute may be anything."""
        return False

    def unit(self, name: str) -> str:
        """Nothing: a docstring is no description that one could rely on."""
        return ""

    def get(self, name: str) -> Any:
        return value_or_member(read_member(self.driver, name))

    def part(self, name: str) -> Any:
        return self.get(name)

    def measure(self, name: str) -> Measured:
        return Measured(read_member(self.driver, name))

    def set(self, name: str, value: Any) -> None:
        set_member(self.driver, name, value)

    def method(self, name: str) -> Callable[..., Any]:
        return find_method(self.driver, name)

    def close(self) -> None:
        self._close(self.driver)
