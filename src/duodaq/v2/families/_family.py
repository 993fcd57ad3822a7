from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from duodaq.model import InstrumentDefinition
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._surface import Limit, Surface


class Family(Protocol):
    """A kind of driver: which classes are of it, and how one of them is constructed. In the driver's thread."""

    @property
    def name(self) -> str: ...

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether this family is at home with the class `driver`."""
        ...

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """A driver, connected: through `line` if its stanza names a port, else by its own means.

        Raises:
            ConfigError: Its constructor does not take what the stanza gives. Nothing was opened.
        """
        ...


def descends(driver: Any, package: str, name: str) -> bool:
    """Whether `driver` is the class `name` of `package` or derived from it; nothing is imported to find out."""
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == package
        for base in getattr(driver, "__mro__", ())
    )
