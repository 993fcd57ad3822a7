"""A camera through PyVCAM, for callers on an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from duodaq.clock import Deadline
from duodaq.drivers.pvcam._camera import VendorCamera
from duodaq.drivers.pvcam._settings import CameraSettings, Frame, FrameCount
from duodaq.drivers.pvcam._thread import CameraThread, FrameSink
from duodaq.errors import LifecycleError

__all__ = ["PvcamDriver"]

T = TypeVar("T")

_OPEN_S = 20.0


class PvcamDriver:
    """Streams, snaps and settings of one camera.

    Args:
        name: Which camera; the first that PVCAM finds without one.
        buffer_frames: Length of the ring that the camera fills; when it is full, the oldest frame is lost, and counted.
        call_timeout_s: How long a call that moves no data may take.
    """

    def __init__(self, name: str | None = None, *, buffer_frames: int = 16, call_timeout_s: float = 5.0) -> None:
        self._camera = VendorCamera(name, buffer_frames)
        self._thread = CameraThread(self._camera, name or "first")
        self._call_timeout_s = call_timeout_s
        self._settings = CameraSettings()
        self._stream: tuple[FrameSink, Callable[[Exception], None]] | None = None

    @property
    def settings(self) -> CameraSettings:
        """How pictures are taken."""
        return self._settings

    @property
    def streaming(self) -> bool:
        """Whether a stream runs."""
        return self._thread.streaming

    @property
    def count(self) -> FrameCount:
        """Frames received and lost since the camera was opened."""
        return self._camera.count

    async def open(self, timeout_s: float = _OPEN_S) -> None:
        """Start the camera's thread and open it there.

        Raises:
            ConfigError: PyVCAM or its library is missing.
            PortOpenError: No such camera, or it is in use. Nothing is held.
        """
        self._thread.start()
        try:
            await self._thread.call(self._camera.open, timeout_s)
        except BaseException:
            await self.aclose(timeout_s)
            raise

    async def aclose(self, timeout_s: float = 5.0) -> bool:
        """End the stream, give the camera back, end its thread; False if a call of the vendor's hangs in it still."""
        return await self._thread.stop(timeout_s)

    async def configure(self, **options: Any) -> CameraSettings:
        """Change `roi`, `binning`, `exposure_s`, `mode`, `gain` or `speed`; a running stream is restarted with them.

        Raises:
            OutOfRangeError: The camera does not take it; the settings are as before, and a stream goes on with them.
        """
        wanted = self._settings.changed(**options)
        stream = self._stream if self.streaming else None
        await self._call(lambda: self._reconfigure(wanted, stream))
        self._settings = wanted
        return wanted

    async def start_stream(
        self, sink: FrameSink, on_end: Callable[[Exception], None], **options: Any
    ) -> CameraSettings:
        """Start the stream: `sink` gets every frame in the camera's thread, `on_end` the reason if it ends by itself.

        Raises:
            LifecycleError: A stream already runs.
            OutOfRangeError: An option the camera does not take; nothing was started.
        """
        if self.streaming:
            raise LifecycleError("the camera already streams", left="the stream goes on")
        wanted = self._settings.changed(**options)
        self._stream = (sink, on_end)
        await self._call(lambda: self._reconfigure(wanted, self._stream))
        self._settings = wanted
        return wanted

    async def stop_stream(self) -> None:
        """End the stream, at most one poll (50 ms) from now; nothing happens without one."""
        self._stream = None
        await self._call(self._thread.end_stream)

    async def snap(self, **options: Any) -> Frame:
        """Take one frame, with `options` for this one alone.

        Raises:
            LifecycleError: A stream runs: take a frame from that.
            PortLostError: No frame came.
        """
        if self.streaming:
            raise LifecycleError("the camera streams; take a frame of the stream", left="the stream goes on")
        wanted = self._settings.changed(**options)
        limit_s = _patience_s(wanted)
        return await self._thread.call(lambda: self._snap(wanted, limit_s), limit_s + self._call_timeout_s)

    async def read_capabilities(self) -> dict[str, Any]:
        """What the camera can do, as plain values."""
        return await self._call(self._camera.capabilities)

    async def read_temperature_c(self) -> float:
        """The sensor's temperature in °C."""
        return await self._call(self._camera.temperature_c)

    async def _call(self, job: Callable[[], T]) -> T:
        return await self._thread.call(job, self._call_timeout_s)

    def _reconfigure(
        self, wanted: CameraSettings, stream: tuple[FrameSink, Callable[[Exception], None]] | None
    ) -> None:
        was_streaming = self._thread.streaming
        self._thread.end_stream()
        try:
            self._camera.apply(wanted)
        except BaseException:
            self._camera.apply(self._settings)
            if not was_streaming:
                stream = None
            else:
                self._begin(stream, self._settings)
            raise
        self._begin(stream, wanted)

    def _begin(self, stream: tuple[FrameSink, Callable[[Exception], None]] | None, settings: CameraSettings) -> None:
        if stream is not None:
            self._thread.begin_stream(*stream, stall_s=_patience_s(settings))

    def _snap(self, wanted: CameraSettings, limit_s: float) -> Frame:
        deadline = Deadline(limit_s)
        self._camera.apply(wanted)
        try:
            return self._thread.take_one(deadline.left_s)
        finally:
            self._camera.apply(self._settings)


def _patience_s(settings: CameraSettings) -> float:
    """How long to wait for a frame before something must be wrong."""
    return 2.0 + 3 * settings.exposure_s
