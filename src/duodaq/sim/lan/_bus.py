from __future__ import annotations

from typing import Protocol


class Bus(Protocol):
    """What a front-end that knows more than bytes asks of the server that carries the instrument."""

    def owed(self, client: int) -> int:
        """How many bytes of a reply to `client` have not been handed to the front-end yet."""
        ...

    def discard(self, client: int) -> None:
        """Forget these: the client has sent something else before it fetched them."""
        ...

    def device_clear(self, client: int) -> None:
        """End what `client` has under way, and empty the input and output buffers that are its."""
        ...

    def poll(self, client: int) -> int:
        """The status byte as `client` sees it, by a serial poll."""
        ...

    def trigger(self, client: int) -> None:
        """A device trigger (GET)."""
        ...


class NoBus:
    """Nobody carries an instrument yet."""

    def owed(self, client: int) -> int:
        return 0

    def discard(self, client: int) -> None:
        """Nothing is there."""

    def device_clear(self, client: int) -> None:
        """Nothing is there."""

    def poll(self, client: int) -> int:
        return 0

    def trigger(self, client: int) -> None:
        """Nothing is there."""
