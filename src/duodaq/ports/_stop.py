from __future__ import annotations

from duodaq import clock
from duodaq.errors import StoppedError, UnsafeStateError


class Latch:
    """Closed by stop-all; while it is closed nothing moves or emits, until a person opens it. One for all ports."""

    def __init__(self) -> None:
        self.closed = False
        self.by = ""
        self.since_ns = 0

    def close(self, by: str) -> None:
        """Close it in the name of `by`. Closing a closed latch keeps the first name."""
        if not self.closed:
            self.closed, self.by, self.since_ns = True, by, clock.utc_ns()

    def open(self) -> None:
        self.closed = False


def moving_refusal(latch: Latch, safety: bool, begun: int, epoch: int, port: str, holder: str) -> Exception | None:
    """Why bytes that move may not be written now, if so: a latched stop, or a stop since their sender began.

    Args:
        latch: The latch of the broker.
        safety: Whether they are part of a safe action, which a latch does not hold back.
        begun: The port's stop epoch when the sender began to wait for the port or began its driver call.
        epoch: The port's stop epoch now.
    """
    if safety:
        return None
    if latch.closed:
        return UnsafeStateError(
            f"stop-all is latched by {latch.by}: nothing may move or emit until a person resets it",
            port=port,
            command=holder,
            left="nothing was sent",
        )
    if begun < epoch:
        return StoppedError("a stop ended this command before it was sent", port=port, command=holder)
    return None
