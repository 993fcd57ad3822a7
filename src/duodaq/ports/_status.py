from __future__ import annotations

from enum import StrEnum

import msgspec

from duodaq.ports._books import PortBooks
from duodaq.ports._desk import LeaseDesk
from duodaq.ports._guest import GuestStatus


class PortState(StrEnum):
    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    RESYNC = "resynchronising"
    LOST = "lost"


class PortStatus(msgspec.Struct, frozen=True):
    """What is known of one port now: its holder and since how long, who waits, and its counts since it was added.

    `worker` says which library carries it and in which process, of a port behind a VISA library. `wait_median_s` and
    `wait_p99_s` are of its last leases, up to 1024; `virtual` says where programs outside find it, `clients` which of
    them are there. `last_error_ns` says when the last error was, in UTC nanoseconds; 0 for none.
    """

    name: str
    state: PortState
    address: str
    holder: str | None = None
    held_s: float = 0.0
    queue: int = 0
    exchanges: int = 0
    errors: int = 0
    reconnects: int = 0
    resyncs: int = 0
    late: int = 0
    stray_bytes: int = 0
    copies: int = 0
    strangers: int = 0
    last_error: str = ""
    last_error_ns: int = 0
    waiting: tuple[str, ...] = ()
    wait_median_s: float = 0.0
    wait_p99_s: float = 0.0
    virtual: tuple[str, ...] = ()
    clients: tuple[GuestStatus, ...] = ()
    worker: str = ""


def status_of(
    name: str, state: PortState, address: str, desk: LeaseDesk, books: PortBooks, worker: str = ""
) -> PortStatus:
    """The status of the port with this desk and these books. From any thread."""
    held = desk.queue.held
    waits_s = sorted(desk.waits_s.copy())
    return PortStatus(
        name=name,
        state=state,
        address=address,
        holder=held.holder if held is not None else None,
        held_s=desk.held_s(),
        queue=len(desk.queue),
        exchanges=books.exchanges,
        errors=books.errors,
        reconnects=books.reconnects,
        resyncs=books.resyncs,
        late=books.late,
        stray_bytes=books.stray_bytes,
        copies=books.copies,
        strangers=books.strangers,
        last_error=books.last_error,
        last_error_ns=books.last_error_ns,
        waiting=desk.queue.holders_waiting(),
        wait_median_s=_quantile(waits_s, 0.5),
        wait_p99_s=_quantile(waits_s, 0.99),
        worker=worker,
    )


def _quantile(rising: list[float], part: float) -> float:
    return rising[min(len(rising) - 1, int(part * len(rising)))] if rising else 0.0
