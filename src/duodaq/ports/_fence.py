"""Which of an instrument's two owners may write.

Every ownership has an epoch, which is part of the name in which its owner writes (``v4.stage@3``, see
`model.holder_of`) from the first byte to the wire log. The broker knows for each instrument that has moved the one name
that may write, and looks when bytes are about to be written: whatever was queued, buffered or asleep before, in
whichever process, is refused, and only here is it decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq.errors import FencedError
from duodaq.model import owner_named

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner


class Fences:
    """The owner of each instrument that has moved. Those that never did have none here, and cost nothing."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._owners)

    def owner(self, instrument: str) -> str | None:
        """In whose name alone may be written for `instrument`; None if it never moved."""
        return self._owners.get(instrument)

    def give(self, instrument: str, holder: str) -> None:
        """From now on only `holder` writes for `instrument`.

        Raises:
            FencedError: Its epoch is not newer than that of the present owner. Nothing was changed.
        """
        present, wanted = owner_named(self._owners.get(instrument, "")), owner_named(holder)
        if present is not None and (wanted is None or wanted.epoch <= present.epoch):
            raise FencedError(f"{holder} is no newer owner than {self._owners[instrument]}", instrument=instrument)
        self._owners[instrument] = holder

    def refusal(self, holder: str) -> FencedError | None:
        """Why `holder` may not write; None if it may, or owns no instrument."""
        named = owner_named(holder)
        owner = None if named is None else self._owners.get(named.instrument)
        if named is None or owner is None or owner == holder:
            return None
        return FencedError(f"it belongs to {owner} now, not to {holder}", instrument=named.instrument)

    def keep_off(self, port: PortOwner) -> None:
        """Send away everybody who waits for `port`, or holds it, and may not write any more. On its loop."""
        for ticket in port.queue.waiting():
            refusal = self.refusal(ticket.holder)
            if refusal is not None and port.queue.withdraw(ticket):
                port.desk.fail([ticket], refusal)
        held = port.queue.held
        if held is not None and self.refusal(held.holder) is not None:
            port.let_go(held)
