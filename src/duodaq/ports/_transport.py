from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from duodaq.model import Outcome


class Receiver(Protocol):
    """Who gets what a transport hears. Called on the event loop that opened it, and never after `aclose`."""

    def data_received(self, data: bytes, /) -> None: ...

    def transport_lost(self, cause: Exception | None, /) -> None:
        """The far end is gone; the transport is closed already. Called once."""
        ...


class Transport(Protocol):
    """Bytes in, bytes out, over one line. Belongs to one event loop; can be opened again once lost or closed."""

    @property
    def address(self) -> str:
        """Where it leads, as a person would write it."""
        ...

    @property
    def is_open(self) -> bool: ...

    @property
    def descriptor(self) -> int | None:
        """The open line's file descriptor, to duplicate but not to close; None while closed, or if there is none."""
        ...

    def identity(self) -> str:
        """What stays the same when the cable is plugged in again, perhaps elsewhere."""
        ...

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        """Open the line and hand all that comes to `receiver`.

        Raises:
            PortOpenError: It cannot be opened, or not within `timeout_s`; nothing is held.
            PortBusyError: Another program has it.
        """
        ...

    def write_nowait(self, data: bytes) -> int:
        """Hand over as much of `data` as the line takes now; how many bytes that was.

        Raises:
            PortLostError: The far end is gone.
        """
        ...

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` once when the line takes bytes again; None withdraws the wish."""
        ...

    def discard_output(self) -> int:
        """Forget bytes that were handed over and have not left yet, where the line can do that; how many those were."""
        ...

    async def aclose(self, timeout_s: float = 1.0) -> None:
        """Let what was written leave, for at most `timeout_s`, and close. Idempotent."""
        ...


@runtime_checkable
class MessageReceiver(Protocol):
    """A Receiver that also takes messages, from a FetchingTransport."""

    def message_received(self, data: bytes, ends: bool, /) -> None:
        """A message, or as much of it as a line without END can tell (`ends` is False then)."""
        ...

    def message_written(self) -> None:
        """What was written, and nothing is fetched for, has been taken by the far end."""
        ...

    def message_untaken(self, why: str, /) -> None:
        """What was written was not taken by the far end in time, or only in part."""
        ...

    def message_missed(self, front: bytes, /) -> None:
        """What was fetched did not come in time, or only its front; of that nothing is known to be the end."""
        ...


@runtime_checkable
class FetchingTransport(Protocol):
    """What a Transport has beside, whose line carries messages: the far end says nothing before it is fetched.

    `write_nowait` takes a whole message, or nothing while the line is in use.
    """

    def ask_nowait(self, data: bytes, limit_s: float) -> int:
        """As `write_nowait`, and fetch the answer, waiting for it for at most `limit_s`."""
        ...

    async def ask(self, data: bytes, limit_s: float) -> None:
        """As `ask_nowait`, when it is this line's turn; returns when it was handed over.

        Raises:
            PortLostError: The line was lost before that.
        """
        ...

    def hurry(self) -> None:
        """What waits for its turn here goes before all that others share the line for."""
        ...

    def fetch_nowait(self, limit_s: float) -> None:
        """Fetch one message more as soon as the line is free; a wish that is there already is not made twice."""
        ...

    async def clear(self, timeout_s: float) -> None:
        """End what is under way, and empty the buffers at both ends: no late answer can come after that.

        Raises:
            PortLostError: That was not done in time, or the line is gone.
        """
        ...

    @property
    def unclosed(self) -> tuple[Outcome, str] | None:
        """How the last close went if the library had a part in it that it did not end; None if all went well."""
        ...

    def worker(self) -> str:
        """Where the line is and what carries it, in a few words; empty while it is closed."""
        ...
