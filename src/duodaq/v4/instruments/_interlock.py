"""Whether a beam may be let out: a person said so, and nothing has happened since that takes it back."""

from __future__ import annotations

from duodaq.errors import UnsafeStateError

__all__ = ["Interlock"]


class Interlock:
    """Armed by a person's message alone, for one incarnation of an actor and one unbroken connection.

    Every stop that reaches the port, from whomever, and every loss of the line, raises the port's stop epoch; an arming
    counts for the epoch in which it was given. So it is not needed that anybody tells the interlock of them.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._why = "nobody has armed it"

    def arm(self, epoch: int) -> None:
        """Permit the beam for as long as the port's stop epoch stays what it is."""
        self._epoch = epoch

    def disarm(self, why: str) -> None:
        """Take the permit back."""
        if self._epoch is not None:
            self._epoch, self._why = None, why

    def armed(self, epoch: int) -> bool:
        """Whether the beam may be let out in this stop epoch."""
        if self._epoch is not None and self._epoch != epoch:
            self.disarm("a stop, or the loss of the line, has disarmed it")
        return self._epoch is not None

    def permit(self, epoch: int) -> None:
        """Do nothing if the beam may be let out.

        Raises:
            UnsafeStateError: It may not. Nothing was sent.
        """
        if not self.armed(epoch):
            raise UnsafeStateError(f"the interlock is open: {self._why}", left="arm it first; nothing was sent")
