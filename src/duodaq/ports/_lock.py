"""Locks on a port, as VISA knows them: exclusive or shared by key, nested, across programs.

The rules that whoever edits this file must keep:

1.  A lock *is* a lease of the port, kept until its last member unlocks or dies: everybody who does not take part waits
    in the same queue as always, and a stop goes before it as before any lease.
2.  Members are seats. The exchanges of all members are made under the lock's one ticket, one after the other.
3.  One member of a shared lock may lock exclusively besides: the others are refused until it unlocks that again.
4.  A lock that cannot be had now waits: as a ticket in the port's queue if somebody else has the port, beside the lock
    it is a member of if it only wants more of that one. After every change all who wait are looked at again.
5.  When the line is lost the lock is void, not forgotten: its members are refused until they unlock, because nobody has
    kept others out meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from enum import StrEnum

from duodaq.errors import PortLockedError
from duodaq.link import Message
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._seat import Seat

_FREE_S = 1.0
"""A lock that may not wait still waits so long for the exchange in hand, as long as nobody has locked the port."""


class LockAction(StrEnum):
    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    UNLOCK = "unlock"
    LOOK = "look"
    LINE = "line"
    """Look, but be refused where the line is lost."""


class LockVerdict(StrEnum):
    DONE = "done"
    NESTED_EXCLUSIVE = "nested exclusive"
    NESTED_SHARED = "nested shared"
    NOT_LOCKED = "not locked"
    WRONG_KEY = "wrong key"
    LOCKED = "locked"
    TOO_LATE = "too late"


class LockOutcome(Message, frozen=True):
    """What became of a request: `key` of the shared lock it is for, and how the port is locked now, and by whom."""

    verdict: LockVerdict
    key: str = ""
    state: str = ""
    holder: str = ""


Told = Callable[[LockOutcome | None, BaseException | None], None]


class PortLock:
    """A lock that is held: its members with how often each has locked, and the ticket under which they speak."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.key = ""
        self.sharing: dict[Seat, int] = {}
        self.exclusive: Seat | None = None
        self.times = 0
        self.void: BaseException | None = None

    def is_member(self, seat: Seat) -> bool:
        return seat is self.exclusive or seat in self.sharing

    @property
    def state(self) -> str:
        return "exclusive" if self.exclusive is not None else "shared" if self.sharing else ""

    def refusal(self, seat: Seat, port: str) -> BaseException | None:
        """What keeps this member from speaking now."""
        if self.void is not None:
            return self.void
        if self.exclusive is None or self.exclusive is seat:
            return None
        return PortLockedError("another member of this lock has it for itself", holder=self.ticket.holder, port=port)


class LockRequest:
    """Somebody who wants a lock: `told` is called once with what became of it; `granted` says whether he got it."""

    __slots__ = ("action", "granted", "holder", "key", "seat", "ticket", "timer", "told")

    def __init__(self, seat: Seat, holder: str, action: LockAction, key: str | None, told: Told) -> None:
        self.seat = seat
        self.holder = holder
        self.action = action
        self.key = key
        self.told = told
        self.granted = False
        self.ticket: Ticket | None = None
        self.timer: asyncio.TimerHandle | None = None


class PortLocks:
    """The locks of one port. On the broker's loop.

    Args:
        port: Its name.
        loop: The broker's.
        ask: Queues a ticket at the port.
        end: Gives back or withdraws a ticket.
        leave: Gives back the lease of a seat, once it has nothing in hand.
    """

    def __init__(
        self,
        port: str,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[Ticket], None],
        end: Callable[[Ticket], None],
        leave: Callable[[Seat], None],
    ) -> None:
        self.held: PortLock | None = None
        self._port = port
        self._loop = loop
        self._ask = ask
        self._end = end
        self._leave = leave
        self._waiting: list[LockRequest] = []

    def request(self, request: LockRequest, timeout_s: float | None) -> None:
        """Do what `request` asks for, now or within `timeout_s` (None: whenever that is)."""
        seat = request.seat
        if request.action in (LockAction.LOOK, LockAction.LINE):
            request.told(self._outcome(LockVerdict.DONE), None)
        elif request.action is LockAction.UNLOCK:
            request.told(self._unlock(seat), None)
        elif seat.lock is not None and seat.lock.void is not None:
            request.told(None, seat.lock.void)
        elif not self._try(request):
            self._wait(request, timeout_s)

    def refusal(self, seat: Seat) -> BaseException | None:
        """What keeps `seat`, which is no member, from queueing for a port that is locked; None if it may wait."""
        if self.held is None or not seat.impatient:
            return None
        return PortLockedError(f"locked by {self.held.ticket.holder}", holder=self.held.ticket.holder, port=self._port)

    def withdraw(self, request: LockRequest) -> None:
        """Nobody waits for `request` any more; a lock that it got is given up."""
        if request in self._waiting:
            self._forget(request)
        elif request.granted:
            self._unlock(request.seat)

    def leave(self, seat: Seat) -> None:
        """The user of `seat` is gone: its locks and its requests with it."""
        for request in [request for request in self._waiting if request.seat is seat]:
            self._forget(request)
        lock = seat.lock
        if lock is None:
            return
        lock.sharing.pop(seat, None)
        if lock.exclusive is seat:
            lock.exclusive, lock.times = None, 0
        self._shrink(lock, seat)

    def lost(self, error: BaseException) -> None:
        """The line is lost: nobody has been kept out since."""
        lock, self.held = self.held, None
        if lock is not None:
            lock.void = error
        for request in [request for request in self._waiting if request.ticket is None]:
            self._forget(request)
            request.told(None, error)

    # --- getting one

    def _try(self, request: LockRequest) -> bool:
        """Give `request` what it wants out of the lock that is held, if that is possible now."""
        lock, seat = self.held, request.seat
        if lock is None:
            return False
        mine = lock.is_member(seat)
        if request.action is LockAction.EXCLUSIVE:
            if not mine or lock.exclusive not in (None, seat):
                return False
            lock.exclusive = seat
            lock.times += 1
            self._tell(request, LockVerdict.NESTED_EXCLUSIVE if lock.times > 1 else LockVerdict.DONE)
            return True
        return self._share(lock, request, mine)

    def _share(self, lock: PortLock, request: LockRequest, mine: bool) -> bool:
        seat, times = request.seat, lock.sharing.get(request.seat, 0)
        if times and request.key not in (None, lock.key):
            self._tell(request, LockVerdict.WRONG_KEY)
            return True
        if not mine and (lock.exclusive is not None or not lock.sharing or request.key != lock.key):
            return False
        if not lock.sharing:
            lock.key = request.key or secrets.token_hex(8)
        lock.sharing[seat] = times + 1
        seat.lock = lock
        self._tell(request, LockVerdict.NESTED_SHARED if times else LockVerdict.DONE)
        return True

    def _wait(self, request: LockRequest, timeout_s: float | None) -> None:
        if timeout_s == 0 and self.held is not None:
            request.told(self._outcome(LockVerdict.LOCKED), None)
            return
        self._waiting.append(request)
        if timeout_s is not None:
            request.timer = self._loop.call_later(timeout_s or _FREE_S, self._expire, request)
        if request.seat.lock is None:
            self._queue(request)

    def _queue(self, request: LockRequest) -> None:
        request.ticket = Ticket(request.holder, Lane.NORMAL, lambda refusal: self._settled(request, refusal))
        self._leave(request.seat)
        self._ask(request.ticket)

    def _settled(self, request: LockRequest, refusal: Exception | None) -> None:
        """The port is granted to the ticket of `request`, or will not be."""
        ticket = request.ticket
        if ticket is None or request not in self._waiting:
            return
        request.ticket = None
        self._forget(request)
        if refusal is not None:
            request.told(None, refusal)
            return
        lock = self.held = PortLock(ticket)
        ticket.sink = request.seat.sink
        request.seat.lock = lock
        if request.action is LockAction.EXCLUSIVE:
            lock.exclusive, lock.times = request.seat, 1
        else:
            lock.key = request.key or secrets.token_hex(8)
            lock.sharing[request.seat] = 1
        self._tell(request, LockVerdict.DONE)
        self._look_again()

    def _expire(self, request: LockRequest) -> None:
        request.timer = None
        self._forget(request)
        request.told(self._outcome(LockVerdict.TOO_LATE), None)

    def _look_again(self) -> None:
        for request in list(self._waiting):
            if request in self._waiting and self._try(request):
                self._forget(request)

    def _tell(self, request: LockRequest, verdict: LockVerdict) -> None:
        request.granted = verdict is not LockVerdict.WRONG_KEY
        request.told(self._outcome(verdict), None)

    def _forget(self, request: LockRequest) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        if request.timer is not None:
            request.timer.cancel()
            request.timer = None
        ticket, request.ticket = request.ticket, None
        if ticket is not None:
            self._end(ticket)

    # --- giving it back

    def _unlock(self, seat: Seat) -> LockOutcome:
        lock = seat.lock
        if lock is None:
            return self._outcome(LockVerdict.NOT_LOCKED)
        verdict = LockVerdict.DONE
        if lock.exclusive is seat:
            lock.times -= 1
            if lock.times:
                verdict = LockVerdict.NESTED_EXCLUSIVE
            else:
                lock.exclusive = None
        else:
            lock.sharing[seat] -= 1
            if not lock.sharing[seat]:
                del lock.sharing[seat]
        if verdict is LockVerdict.DONE and seat in lock.sharing:
            verdict = LockVerdict.NESTED_SHARED
        self._shrink(lock, seat)
        return self._outcome(verdict)

    def _shrink(self, lock: PortLock, seat: Seat) -> None:
        """A member has less of `lock` than before: end it if nobody has any of it."""
        if not lock.is_member(seat):
            seat.lock = None
        if lock is not self.held:
            return
        if lock.state:
            self._look_again()
        else:
            self.held = None
            self._end(lock.ticket)
        if seat.lock is None:  # whoever wanted more of that lock for it now wants one of its own
            for request in [one for one in self._waiting if one.seat is seat and one.ticket is None]:
                self._queue(request)

    def _outcome(self, verdict: LockVerdict) -> LockOutcome:
        held = self.held
        if held is None:
            return LockOutcome(verdict)
        return LockOutcome(verdict, held.key, held.state, held.ticket.holder)
