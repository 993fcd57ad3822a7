"""The one thread in which all calls of one camera are made.

Rules that whoever edits this must keep: nothing else ever calls the camera; between two polls of a running stream,
and while a frame waits for room, the thread looks for work, so no call waits longer than one poll; a poll is short,
so a stop is prompt; the thread ends by itself when it is told to, and a caller whose deadline passed is freed while
the call goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from duodaq.clock import block, monotonic_s
from duodaq.drivers.pvcam._camera import VendorCamera
from duodaq.drivers.pvcam._settings import Frame
from duodaq.errors import LifecycleError, MailboxFullError, PortLostError, ReplyTimeoutError

__all__ = ["CameraThread", "FrameSink"]

T = TypeVar("T")
FrameSink = Callable[[Frame], object]
_POLL_MS = 50
_JOBS = 32
_IDLE_S = 3600.0
_ROOM_S = 0.005


class CameraThread:
    """Runs jobs on a camera, and between them its stream.

    `sink` is called in this thread with each frame; if it raises MailboxFullError the thread waits for room, and what
    the camera's ring loses meanwhile is counted by its frame numbers. `on_end` is called once, when a stream ends by
    itself.
    """

    def __init__(self, camera: VendorCamera, name: str) -> None:
        self._camera = camera
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(_JOBS)
        self._thread = threading.Thread(target=self._run, name=f"duodaq-camera-{name}", daemon=True)
        self._stopping = threading.Event()
        self._sink: FrameSink | None = None
        self._on_end: Callable[[Exception], None] = lambda error: None
        self._stall_s = 2.0
        self._last_frame_s = 0.0
        self._in_hand = False

    @property
    def streaming(self) -> bool:
        """Whether a stream runs."""
        return self._sink is not None

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, job: Callable[[], T], timeout_s: float) -> T:
        """Run `job` in the thread; its result or its exception.

        Raises:
            ReplyTimeoutError: Not finished in time; the call goes on, and its fate is unknown. If it had not begun, it
                never will.
        """
        future: Future[T] = Future()
        self._put(future, job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError as error:
            begun = not future.cancelled()
            raise ReplyTimeoutError(
                f"the camera did not answer within {timeout_s:g} s", fate="unknown" if begun else "not done"
            ) from error

    def begin_stream(self, sink: FrameSink, on_end: Callable[[Exception], None], stall_s: float) -> None:
        """Start the stream; a job of this thread. It ends as stalled if no frame comes for `stall_s`."""
        self._camera.start_live()
        self._sink, self._on_end, self._stall_s = sink, on_end, stall_s
        self._last_frame_s = monotonic_s()

    def end_stream(self) -> None:
        """End the stream; a job of this thread. Nothing happens without one."""
        if self._sink is not None:
            self._sink = None
            self._drop_in_hand()
            self._camera.finish()

    def take_one(self, timeout_s: float) -> Frame:
        """Take one frame without a stream; a job of this thread, which ends early if the thread is to stop."""
        self._camera.start_single()
        give_up_s = monotonic_s() + timeout_s
        try:
            while not self._stopping.is_set() and monotonic_s() < give_up_s:
                frame = self._camera.poll(_POLL_MS)
                if frame is not None:
                    return frame
        finally:
            self._camera.finish()
        raise PortLostError(f"no frame came within {timeout_s:.1f} s")

    async def stop(self, timeout_s: float) -> bool:
        """End the stream, close the camera and end the thread; whether it ended within `timeout_s`."""
        self._stopping.set()
        if not self._thread.is_alive():
            return True
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _put(self, future: Future[Any], job: Callable[[], Any]) -> None:
        if self._stopping.is_set() or not self._thread.is_alive():
            raise LifecycleError("the camera is closed")
        try:
            self._jobs.put_nowait((future, job))
        except queue.Full:
            raise MailboxFullError(f"{_JOBS} calls already wait for the camera") from None

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._work()
                if self._sink is not None:
                    self._pump(self._sink)
        finally:
            self._sink = None
            self._refuse_the_rest()
            with contextlib.suppress(RuntimeError):  # the vendor's word for a camera that is already gone
                self._camera.close()

    def _work(self) -> None:
        try:
            job = self._jobs.get_nowait() if self._sink is not None else self._jobs.get(timeout=_IDLE_S)
        except queue.Empty:
            return
        if job is not None and job[0].set_running_or_notify_cancel():
            _carry_out(*job)

    def _pump(self, sink: FrameSink) -> None:
        try:
            frame = self._camera.poll(_POLL_MS)
            if frame is None:
                self._check_stall()
                return
            self._last_frame_s = monotonic_s()
            self._deliver(sink, frame)
        except Exception as error:  # noqa: BLE001 - whatever ends a stream is told to its owner
            self._sink = None
            self._drop_in_hand()
            with contextlib.suppress(RuntimeError):
                self._camera.finish()
            self._on_end(error)

    def _deliver(self, sink: FrameSink, frame: Frame) -> None:
        self._in_hand = True
        while self._in_hand and not self._stopping.is_set():
            try:
                sink(frame)
            except MailboxFullError:
                block(_ROOM_S, self._stopping)
                self._work()  # a stop waits for no reader
            else:
                self._in_hand = False
        self._drop_in_hand()

    def _drop_in_hand(self) -> None:
        """The frame that waits for room goes no further: its stream has ended."""
        if self._in_hand:
            self._in_hand = False
            self._camera.count.lost += 1

    def _check_stall(self) -> None:
        silent_s = monotonic_s() - self._last_frame_s
        if silent_s > self._stall_s:
            raise PortLostError(f"no frame for {silent_s:.1f} s; the camera says {self._camera.status()}")

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job[0].set_running_or_notify_cancel():
                    job[0].set_exception(LifecycleError("the camera was closed"))


def _carry_out(future: Future[Any], job: Callable[[], Any]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001 - the asker gets it
        future.set_exception(error)
