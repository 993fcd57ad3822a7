from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from duodaq import clock
from duodaq.errors import PortLostError, PortOpenError
from duodaq.ports._transport import Receiver

_T = TypeVar("_T")
_CHUNK = 65536


class DescriptorLine:
    """A non-blocking file descriptor watched by the running loop: what serial lines and sockets have in common.

    Whoever opened the descriptor closes it, in `on_close`, which is called exactly once.
    """

    def __init__(self, descriptor: int, receiver: Receiver, on_close: Callable[[], None], address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._receiver = receiver
        self._on_close = on_close
        self._address = address
        self._writable: Callable[[], None] | None = None
        self.is_open = True
        self._loop.add_reader(descriptor, self._readable)

    @property
    def descriptor(self) -> int | None:
        return self._descriptor if self.is_open else None

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if data:
            self._receiver.data_received(data)
        else:
            self._lost(None)

    def write_nowait(self, data: bytes) -> int:
        if not self.is_open:
            raise PortLostError("closed", port=self._address)
        try:
            return os.write(self._descriptor, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._loop.call_soon(self._lost, error)
            raise PortLostError(f"write failed: {error}", port=self._address) from error

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        if not self.is_open:
            return
        if callback is not None and self._writable is None:
            self._loop.add_writer(self._descriptor, self._now_writable)
        elif callback is None and self._writable is not None:
            self._loop.remove_writer(self._descriptor)
        self._writable = callback

    def _now_writable(self) -> None:
        callback, self._writable = self._writable, None
        self._loop.remove_writer(self._descriptor)
        if callback is not None:
            callback()

    def _lost(self, cause: Exception | None) -> None:
        if self.is_open:
            self.close()
            self._receiver.transport_lost(cause)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._descriptor)
        if self._writable is not None:
            self._loop.remove_writer(self._descriptor)
            self._writable = None
        self._on_close()


async def open_beside(opening: Callable[[], _T], closing: Callable[[_T], None], timeout_s: float, address: str) -> _T:
    """The result of `opening`, a call that may block, made in a thread of its own so that the loop never waits for it.

    Raises:
        PortOpenError: `timeout_s` passed. What `opening` returns after that is given to `closing`.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if opened.done():
            if result is not None:
                closing(result)
        elif error is not None:
            opened.set_exception(error)
        else:
            opened.set_result(result)  # type: ignore[arg-type] - one of the two is there

    def work() -> None:
        result, error = None, None
        try:
            result = opening()
        except Exception as caught:  # noqa: BLE001 - carried to the awaiting side, whatever it is
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            if result is not None:
                closing(result)

    threading.Thread(target=work, name=f"duodaq open {address}", daemon=True).start()
    try:
        await asyncio.wait({opened}, timeout=timeout_s)
    except asyncio.CancelledError:
        opened.cancel()
        raise
    if opened.done():
        return opened.result()
    opened.cancel()
    raise PortOpenError(f"did not open within {timeout_s:g} s", port=address)


async def drained(unsent: Callable[[], int], timeout_s: float) -> bool:
    """Wait until `unsent` counts no more bytes, for at most `timeout_s`; whether that came true."""
    deadline = clock.Deadline(timeout_s)
    while unsent() > 0:
        if deadline.passed:
            return False
        await clock.pause(0.005)
    return True
