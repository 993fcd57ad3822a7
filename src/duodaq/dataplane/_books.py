from __future__ import annotations

import threading
from dataclasses import dataclass, field

from duodaq.dataplane._ledger import Ledger, LedgerRow


@dataclass(slots=True)
class _Account:
    taken: int = 0
    forwarded: int = 0
    in_hand: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])


class Books:
    """What a carrier took, forwarded and dropped, by stream; balanced whenever it is looked at, from any thread.

    Args:
        name: The carrier's, in place of a hub's.
        subscriber: Where it carries to.
    """

    def __init__(self, name: str, subscriber: str) -> None:
        self._name = name
        self._subscriber = subscriber
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}

    def take(self, stream: str, weight: int) -> None:
        """Something is in the lane's hand from now on."""
        with self._lock:
            account = self._accounts.get(stream)
            if account is None:
                account = self._accounts[stream] = _Account()
            account.taken += weight
            account.in_hand += weight

    def settle(self, stream: str, weight: int, dropped: str | None = None) -> None:
        """It has left the lane's hand: forwarded, or dropped for a reason."""
        with self._lock:
            account = self._accounts[stream]
            account.in_hand -= weight
            if dropped is None:
                account.forwarded += weight
            else:
                account.dropped[dropped] = account.dropped.get(dropped, 0) + weight

    def in_hand(self, stream: str) -> int:
        """How much of a stream is in the lane's hand now."""
        with self._lock:
            account = self._accounts.get(stream)
            return 0 if account is None else account.in_hand

    def ledger(self) -> Ledger:
        """The books of this moment, as a hub would show them."""
        with self._lock:
            rows = tuple(self._row(stream, account) for stream, account in self._accounts.items())
            return Ledger({self._name: {row.stream: row.produced for row in rows}}, rows)

    def _row(self, stream: str, account: _Account) -> LedgerRow:
        return LedgerRow(
            hub=self._name,
            stream=stream,
            subscriber=self._subscriber,
            produced=account.taken,
            skipped=0,
            offered=account.taken,
            delivered=account.forwarded,
            in_flight=account.in_hand,
            dropped=dict(account.dropped),
        )
