"""One port worker as the manager holds it: a process in which a VISA library runs, and the calls into it.

The rules that whoever edits this file must keep:

1.  One call at a time goes in, whichever of its resources it is for: what shares a process is serialised, write and
    reply in one, also where the library would allow more. Whoever finds it busy is told, in order, when it is free;
    who is in a hurry (a stop, and the clear before it) before all the others.
2.  Every call has a limit, and a grace behind it in which the library's own time-out should have ended it. A call that
    comes back later than that comes back to nobody: the process is killed, and every resource in it is lost.
3.  The death of the process is the loss of all its resources, told once each. The next that opens one makes another.
4.  Nothing here blocks: the link is a non-blocking stream, watched by the broker's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from duodaq.errors import DataError, PortLostError
from duodaq.ports._visa_sentences import Done, Failed, Frames, Lost, OfManager, Piece, decode_of_worker, frame
from duodaq.telemetry import get_logger

_log = get_logger("ports")
GRACE_S = 2.0
"""How long after its own time-out a library may take to come back from a call."""
_READ_BYTES = 1 << 18
_END_S = 1.0


class WorkerProcess(Protocol):
    """A process of this program whose entry point has the other end of `link`, a non-blocking stream."""

    @property
    def pid(self) -> int: ...

    @property
    def link(self) -> socket.socket: ...

    def kill(self) -> None: ...

    async def aclose(self, timeout_s: float = 1.0) -> int | None:
        """Kill it if it still runs, wait until it is gone, release everything."""
        ...


class SpawnWorker(Protocol):
    """Makes port workers: processes that run `serve_visa` on their end of the link."""

    async def __call__(self, name: str, timeout_s: float) -> WorkerProcess:
        """A new one, shown under `name`. Raises DuodaqError if there is none in time."""
        ...


class Call(Protocol):
    """Who has made a call, and hears what becomes of it."""

    def piece(self, data: bytes, /) -> None: ...

    def done(self, data: bytes, ends: bool, /) -> None: ...

    def failed(self, kind: str, why: str, /) -> None: ...


class PortWorker:
    """One port worker. On the broker's loop."""

    def __init__(self, process: WorkerProcess) -> None:
        self.pid = process.pid
        self.over = False
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._unsent = bytearray()
        self._calls = itertools.count(1)
        self._resources = itertools.count(1)
        self._lost: dict[int, Callable[[PortLostError], None]] = {}
        self._number = 0
        self._hand: Call | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._hurried: deque[Callable[[], None]] = deque()
        self._turn: Callable[[], None] | None = None
        self._reaping: asyncio.Task[int | None] | None = None
        self._loop.add_reader(process.link, self._readable)

    # --- resources

    def add(self, lost: Callable[[PortLostError], None]) -> int:
        """A number for a resource; `lost` is called, once, if it or the whole process is lost."""
        number = next(self._resources)
        self._lost[number] = lost
        return number

    def forget(self, resource: int) -> bool:
        """Nobody cares for that resource any more; whether it was the last."""
        self._lost.pop(resource, None)
        return not self._lost

    # --- calls

    def free_for(self, turn: Callable[[], None] | None) -> bool:
        """Whether a call may be made now, by whoever waits with `turn`, or does not wait yet (None)."""
        if self.over or self._hand is not None:
            return False
        nobody_waits = not (self._waiting or self._hurried) and self._turn is None
        return nobody_waits or (turn is not None and turn == self._turn)

    def wait_for_turn(self, turn: Callable[[], None]) -> None:
        """Call `turn` when it is its turn; it may make a call then, or not."""
        if turn not in self._waiting and turn not in self._hurried:
            self._waiting.append(turn)
            if self._hand is None and not self.over:
                self._loop.call_soon(self._next)

    def hurry(self, turn: Callable[[], None]) -> None:
        """If that turn waits, it comes before all that are in no hurry."""
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._hurried.append(turn)

    def withdraw(self, turn: Callable[[], None]) -> None:
        """That turn is not wanted any more."""
        for line in (self._waiting, self._hurried):
            if turn in line:
                line.remove(turn)

    def begin(self, make: Callable[[int], OfManager], limit_s: float, hand: Call) -> None:
        """Make a call, which must be over within `limit_s` and a grace. Only when it is free."""
        assert self._hand is None
        self._number = next(self._calls)
        self._hand = hand
        self._deadline = self._loop.call_later(limit_s + GRACE_S, self._overdue, limit_s + GRACE_S)
        self._send(frame(make(self._number)))

    def _end_call(self) -> Call:
        hand, self._hand = self._hand, None
        assert hand is not None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return hand

    def _next(self) -> None:
        for _ in range(len(self._waiting) + len(self._hurried)):
            line = self._hurried or self._waiting
            if self._hand is not None or self.over or not line:
                return
            self._turn = line.popleft()
            try:
                self._turn()
            finally:
                self._turn = None

    def _overdue(self, after_s: float) -> None:
        self._deadline = None
        self.end(f"the VISA library did not come back within {after_s:g} s; its process {self.pid} was killed")

    # --- the link

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            try:
                data = data[self._process.link.send(data) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._loop.call_soon(self.end, f"its port worker {self.pid} ended: {error.strerror}")
                return
            if not data:
                return
            self._loop.add_writer(self._process.link, self._writable)
        self._unsent += data

    def _writable(self) -> None:
        try:
            del self._unsent[: self._process.link.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # its end is read
        if not self._unsent:
            self._loop.remove_writer(self._process.link)

    def _readable(self) -> None:
        try:
            data = self._process.link.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end(f"its port worker {self.pid} ended")
            return
        try:
            for body in self._frames.feed(data):
                self._heard(decode_of_worker(body))
        except (DataError, msgspec.MsgspecError) as error:
            self.end(f"its port worker {self.pid} says what makes no sense: {error}")

    def _heard(self, sentence: Piece | Done | Failed | Lost) -> None:
        if isinstance(sentence, Lost):
            lost = self._lost.pop(sentence.resource, None)
            if lost is not None:
                lost(PortLostError(sentence.why))
            return
        if self._hand is None or sentence.call != self._number:
            raise DataError(f"an answer to call {sentence.call}, which is not under way")
        match sentence:
            case Piece():
                self._hand.piece(sentence.data)
            case Done():
                self._end_call().done(sentence.data, sentence.ends)
                self._next()
            case Failed():
                self._end_call().failed(sentence.kind, sentence.why)
                self._next()

    # --- the end

    def end(self, why: str) -> None:
        """Kill the process; all its resources are lost. Idempotent."""
        if self.over:
            return
        if self._lost:
            _log.warning("a port worker is gone", pid=self.pid, cause=why)
        self._let_go()
        lost, self._lost = self._lost, {}
        if self._hand is not None:
            self._end_call().failed("lost", why)
        for tell in lost.values():
            tell(PortLostError(why))
        waiting = [*self._hurried, *self._waiting]
        self._hurried.clear()
        self._waiting.clear()
        for turn in waiting:
            turn()

    def _let_go(self) -> None:
        self.over = True
        self._loop.remove_reader(self._process.link)
        self._loop.remove_writer(self._process.link)
        self._process.kill()
        self._reaping = self._loop.create_task(self._process.aclose(_END_S), name=f"port worker {self.pid} ends")

    async def aclose(self) -> None:
        """End the process and wait until it is gone. Idempotent."""
        self.end("closed")
        if self._reaping is not None:
            await asyncio.wait({self._reaping})
