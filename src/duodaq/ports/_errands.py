"""For which driver call a thread speaks: the one in hand, or one that has ended and left the thread behind.

A driver may let threads of its own write for it. Nothing ends them with the call, and a stop that comes later must
reach them all the same; nobody can see whether such a thread serves every call or goes on with an old one. So:

1.  The thread that makes a call speaks for it. A thread that writes first within a call speaks for that call.
2.  Outside of a call a thread still speaks for the call it last worked for; one that never did, for the last call that
    might move. So what moves is refused after a stop, until something is asked for again.
3.  A later call takes a thread up, but after a stop only a call that may move.
4.  A call that ended with its outcome unknown *leaves* its threads: they speak for it within later calls too. After a
    stop one of those is taken up only when it has been told, by a refusal, that it was stopped.
5.  A thread that was left must not get, or spoil, the reply to what somebody else has asked.

Where no call was ever made (a program with a session of its own), nothing of this applies.
"""

from __future__ import annotations

import threading
import weakref

from duodaq.clock import Deadline
from duodaq.errors import PortTimeoutError
from duodaq.ports._seat import Seat


class DriverCall:
    """One driver call: its seat, if it has one, the stop epoch in which it began, and whether it has sent anything.

    It lives as long as the thread that makes it: a driver may let other threads write for it, and these may end before.
    """

    __slots__ = ("alive", "deadline", "epoch", "moving", "seat", "sent", "thread", "unknown", "used")

    def __init__(self, epoch: int, seat: Seat | None, deadline: Deadline | None, moving: bool) -> None:
        self.epoch = epoch
        self.seat = seat
        self.deadline = deadline
        self.moving = moving
        self.sent = self.used = self.unknown = False
        self.thread = threading.current_thread()
        self.alive = self.thread.is_alive


class Errand:
    """What a thread that makes no call itself speaks for."""

    __slots__ = ("_refused", "_refused_in", "call", "left", "moving", "robbed")

    def __init__(self, call: DriverCall, moving: bool) -> None:
        self.call = call
        self.moving = moving
        self.left = False
        self.robbed = False
        self._refused = False
        self._refused_in: DriverCall | None = None

    def standing(self, now: DriverCall | None) -> tuple[int, bool]:
        """The stop epoch of what it sends while `now` is the call in hand; and whether that moves, without a codec."""
        return self.call.epoch, (self.moving if now is None or self.left else now.moving)

    def refused(self, now: DriverCall | None) -> None:
        """A stop has refused what it wrote while `now` was the call in hand."""
        self._refused, self._refused_in = True, now

    def ends_with(self, now: DriverCall) -> bool:
        """Whether the thread works for `now` from here on."""
        if now.epoch == self.call.epoch:
            return now.moving or not self.left
        return now.moving and (not self.left or (self._refused and now is not self._refused_in))


class Errands:
    """The errands of the threads that use one session. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._of: weakref.WeakKeyDictionary[threading.Thread, Errand] = weakref.WeakKeyDictionary()
        self._last: DriverCall | None = None
        self._asker: Errand | None = None
        self._robbed = False

    def began(self, call: DriverCall) -> None:
        """`call` is in hand."""
        if call.moving:
            self._last = call

    def ended(self, call: DriverCall, *, unknown: bool) -> None:
        """It is no more; `unknown`: what it had begun may go on."""
        if not unknown:
            return
        call.unknown = True
        with self._guard:
            for errand in self._of.values():
                errand.left = errand.left or errand.call is call

    def mine(self, now: DriverCall | None) -> Errand | None:
        """What the present thread speaks for while `now` is in hand; None: for `now`, or for no call at all."""
        thread = threading.current_thread()
        if now is not None and now.thread is thread:
            return None
        if now is None and self._last is None and not self._of:
            return None
        with self._guard:
            errand = self._of.get(thread)
            if now is None:
                if errand is None and self._last is not None:
                    return Errand(self._last, self._last.moving and self._last.unknown)
                return errand
            if errand is None or (errand.call is not now and errand.ends_with(now)):
                errand = self._of[thread] = Errand(now, now.moving)
            return errand

    # --- replies

    def asked_last(self, mine: Errand | None) -> bool:
        """Whether the last that was written came from whoever `mine` speaks for; nothing has to be thrown away then."""
        return self._asker is mine and not (mine is not None and mine.robbed)

    def asks(self, mine: Errand | None, port: str, *, unread: bool) -> bool:
        """The thread of `mine` is about to write; `unread`: there is a reply, or will be, that nobody has read.

        Returns:
            Whether that reply is for a thread that was left: it is to be thrown away.

        Raises:
            PortTimeoutError: That thread was left, and the reply is for somebody else. Nothing was sent.
        """
        asker = self._asker
        if unread and asker is not mine:
            if asker is not None and asker.left:
                asker.robbed = self._robbed = True
            elif mine is not None and mine.left:
                raise PortTimeoutError(
                    "the call for which this is written has ended, and another one is asking",
                    port=port,
                    left="nothing was sent",
                )
        if mine is not None:
            mine.robbed = False
        self._asker = mine
        return unread and asker is not None and asker.robbed

    def check_reader(self, port: str) -> None:
        """Raise PortTimeoutError if the present thread's question was thrown away for another one."""
        if not self._robbed:
            return
        errand = self._of.get(threading.current_thread())
        if errand is not None and errand.robbed:
            raise PortTimeoutError("the call that asked has ended, and another one has asked since", port=port)
