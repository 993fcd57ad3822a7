from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

_CHUNK = 65536
_RETRY_S = 0.005
_SWEEP_LIMIT = 256 * 1024


class GuestReceiver(Protocol):
    """Who gets what comes over a GuestLine; called on the loop, never after `close`."""

    def heard(self, data: bytes, /) -> None: ...

    def finished(self) -> None:
        """No more comes, but the far end may still read."""
        ...

    def gone(self) -> None:
        """The far end has closed it, or died."""
        ...

    def delivered(self) -> None:
        """All that was to be sent has been taken."""
        ...


class GuestLine:
    """The broker's end of a pty or a socket, at whose other end is a program outside.

    Sending never waits: what the program does not take is kept, and `stuck_s` says for how long nothing of it went.

    Args:
        descriptor: Non-blocking; closed by `on_close`, which is called once.
        receiver: Who gets what comes.
        on_close: Closes the descriptor.
        hangs_up: Whether the end of what comes is the end of all (a pty), or of one direction (a socket).
    """

    def __init__(
        self, descriptor: int, receiver: GuestReceiver, on_close: Callable[[], None], *, hangs_up: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._receiver = receiver
        self._on_close = on_close
        self._hangs_up = hangs_up
        self._backlog = bytearray()
        self._moved_at_s = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._listening = False
        self._at_end = False
        self.is_open = True

    @property
    def unsent(self) -> int:
        """How many bytes the program has not taken."""
        return len(self._backlog)

    @property
    def stuck_s(self) -> float:
        """For how long it has taken none of them; 0 if there are none."""
        return self._loop.time() - self._moved_at_s if self._backlog else 0.0

    def listen(self, listening: bool) -> None:
        """Whether what comes is taken, or left where it is."""
        listening = listening and self.is_open and not self._at_end
        if listening == self._listening:
            return
        self._listening = listening
        if listening:
            self._loop.add_reader(self._descriptor, self.read_now)
        else:
            self._loop.remove_reader(self._descriptor)

    def read_now(self) -> bool:
        """Take what has come, at most one piece of it; whether there was any."""
        if not self.is_open or self._at_end:
            return False
        try:
            data = os.read(self._descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # EIO of a pty whose last user closed it; a reset connection
            self._receiver.gone()
            return False
        if data:
            self._receiver.heard(data)
            return True
        self.listen(False)
        self._at_end = True
        if self._hangs_up:
            self._receiver.gone()
        else:
            self._receiver.finished()
        return False

    def sweep(self) -> None:
        """Take all that has come until now, within reason."""
        for _ in range(_SWEEP_LIMIT // _CHUNK):
            if not self.read_now():
                return

    def send(self, data: bytes) -> None:
        """Hand `data` to the program; what it does not take now is kept for it."""
        if not self.is_open:
            return
        if self._backlog:
            self._backlog += data
            return
        taken = self._write(data)
        if taken < len(data) and self.is_open:
            self._backlog += data[taken:]
            self._moved_at_s = self._loop.time()
            self._retry = self._loop.call_later(_RETRY_S, self._send_rest)

    def _send_rest(self) -> None:
        self._retry = None
        taken = self._write(bytes(self._backlog[:_CHUNK]))
        if not self.is_open:
            return
        if taken:
            del self._backlog[:taken]
            self._moved_at_s = self._loop.time()
        if self._backlog:
            self._retry = self._loop.call_later(0 if taken else _RETRY_S, self._send_rest)
        else:
            self._receiver.delivered()

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._loop.call_soon(self._lost)
            return len(data)

    def _lost(self) -> None:
        if self.is_open:
            self._receiver.gone()

    def close(self) -> None:
        """Hang up. Idempotent."""
        if not self.is_open:
            return
        self.listen(False)
        self.is_open = False
        self._backlog.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._on_close()
