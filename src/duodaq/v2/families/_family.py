from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from duodaq.model import InstrumentDefinition
from duodaq.v2.families._line import SharedLine


class Family(Protocol):
    """What has to be known of a kind of driver to host it: how to construct and close one. In the driver's thread."""

    @property
    def name(self) -> str: ...

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether this family is at home with the class `driver`."""
        ...

    def construct(self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None) -> Any:
        """A driver, connected: through `line` if its stanza names a port, else by its own means.

        Raises:
            ConfigError: Its constructor does not take what the stanza gives. Nothing was opened.
        """
        ...

    def close(self, driver: Any) -> None:
        """Let go of the device without changing any output of it."""
        ...
