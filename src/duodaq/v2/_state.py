from __future__ import annotations

from collections.abc import Callable

import msgspec

from duodaq import clock
from duodaq.errors import LifecycleError
from duodaq.model import InstrumentDefinition, InstrumentState, InstrumentStatus, may_change

OnChange = Callable[[InstrumentStatus], None]


class StateKeeper:
    """The state of one instrument: changes only as the life-cycle table allows, and tells who wants to know.

    `status` is replaced whole at each change, so that any thread may read it; `replaced` is called after that.
    """

    def __init__(self, definition: InstrumentDefinition, on_change: OnChange, replaced: Callable[[], None]) -> None:
        self._on_change = on_change
        self._replaced = replaced
        self.status = InstrumentStatus(
            definition.id, "v2", InstrumentState.DISCONNECTED, since_ns=clock.utc_ns(), port=definition.port
        )

    @property
    def state(self) -> InstrumentState:
        """The present state."""
        return self.status.state

    def change(self, new: InstrumentState, message: str = "", *, recoverable: bool = True) -> None:
        """Go to `new`, because of `message`; the same state with another message is no change of state.

        Raises:
            LifecycleError: The table does not allow it. The state is unchanged.
        """
        old = self.status.state
        if new is not old and not may_change(old, new):
            raise LifecycleError(f"may not go from {old} to {new}", instrument=self.status.id)
        since = self.status.since_ns if new is old else clock.utc_ns()
        self.status = msgspec.structs.replace(
            self.status, state=new, message=message, recoverable=recoverable, since_ns=since
        )
        self._replaced()
        if new is not old:
            self._on_change(self.status)

    def count_restart(self) -> None:
        """One more time that the driver has been connected anew."""
        self.status = msgspec.structs.replace(self.status, restarts=self.status.restarts + 1)
        self._replaced()
