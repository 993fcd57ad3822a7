"""A PVCAM camera as an actor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from duodaq.drivers.pvcam import CameraSettings, Frame, PvcamDriver
from duodaq.errors import ConfigError, DuodaqError, LifecycleError
from duodaq.model import (
    ChannelInfo,
    Image,
    InstrumentState,
    Measurement,
    SnapFrame,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.schema import frame_batch
from duodaq.v4._message import handler
from duodaq.v4.instruments._context import InstrumentContext
from duodaq.v4.instruments._instrument import InstrumentActor, Parameter
from duodaq.v4.instruments._messages import (
    ConfigureRoi,
    GetCapabilities,
    IsStreaming,
    SetBinning,
    SetGain,
    SetTiming,
    StartStream,
    StopStream,
)

__all__ = ["PvcamActor"]

_FRAMES = "frames"
_INTERRUPTED = "interrupted stream"
_DRIVER_OPTIONS = ("buffer_frames", "call_timeout_s")


def _option(name: str, unit: str = "") -> Parameter:
    async def read(actor: PvcamActor) -> Any:
        return msgspec.to_builtins(getattr(actor.driver.settings, name))

    async def write(actor: PvcamActor, value: Any) -> Any:
        await actor.configure(**{name: value})
        return await read(actor)

    return Parameter(read, write, unit)


async def _read_temperature(actor: PvcamActor) -> float:
    return await actor.driver.read_temperature_c()


async def _read_lost(actor: PvcamActor) -> int:
    return actor.driver.count.lost


class PvcamActor(InstrumentActor):
    """Frames on the channel ``frames``, each with the camera's own number, and the count of those that were lost.

    Args of the lab file: ``camera`` (which one; the first without), ``simulated`` (the shipped simulator behind
    PyVCAM's own seam, at the optical ``table`` of that address if one is given, with ``seed``), ``buffer_frames``,
    ``call_timeout_s``, and to begin with any of roi, binning, exposure_s, mode, gain, speed.
    """

    operations: ClassVar[Mapping[str, type]] = {
        "start_stream": StartStream,
        "stop_stream": StopStream,
        "snap_frame": SnapFrame,
        "configure_roi": ConfigureRoi,
        "set_timing": SetTiming,
        "set_gain": SetGain,
        "set_binning": SetBinning,
        "get_capabilities": GetCapabilities,
        "is_streaming": IsStreaming,
    }
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "roi": _option("roi"),
        "binning": _option("binning"),
        "exposure_s": _option("exposure_s", "s"),
        "gain": _option("gain"),
        "mode": _option("mode"),
        "speed": _option("speed"),
        "temperature": Parameter(_read_temperature, unit="°C"),
        "frames_lost": Parameter(_read_lost),
    }

    def __init__(self, context: InstrumentContext) -> None:
        super().__init__(context)
        args = dict(self.definition.args)
        self._simulated = bool(args.pop("simulated", False))
        self._table, self._seed = args.pop("table", None), int(args.pop("seed", 0))
        self._holds_simulator = False
        driver_options = {key: args.pop(key) for key in _DRIVER_OPTIONS if key in args}
        self.driver = PvcamDriver(args.pop("camera", None), **driver_options)
        self._initial = args
        self._loop = asyncio.get_running_loop()

    def channel_infos(self) -> tuple[ChannelInfo, ...]:
        """The frames, and what the lab file adds."""
        return (ChannelInfo(self.definition.id, _FRAMES, "counts", "image", "v4"), *super().channel_infos())

    async def connect(self) -> None:
        """Open the camera in its own thread; no exposure is begun."""
        if self._simulated:
            _simulator.hold(self._table, self._seed)
            self._holds_simulator = True
        await self.driver.open()
        stored = self.context.memory.setdefault("camera", self._initial)
        await self.driver.configure(**stored)
        self._note_settings()

    async def disconnect(self) -> None:
        """End the stream and give the camera back."""
        ended = await self.driver.aclose()
        if self._holds_simulator and ended:
            self._holds_simulator = False
            _simulator.release()
        if not ended:
            raise LifecycleError("a call of the vendor's library hangs", left="its thread is left behind")

    async def recover(self) -> None:
        """Start a stream again that ended by itself; where the camera itself is at fault, a restart opens it anew."""
        options = self.context.memory.pop(_INTERRUPTED, None)
        if options is not None and not self.driver.streaming:
            await self.start_acquisition(StartAcquisition(options))
            self.context.memory["acquiring"] = options

    async def configure(self, **options: Any) -> None:
        """Change settings; a running stream goes on with them. Kept across a restart."""
        settings = await self.driver.configure(**options)
        self._stored(settings)

    @handler(StartStream, moves=True)
    async def start_stream(self, message: StartStream) -> None:
        """Start the stream."""
        options = {key: value for key, value in msgspec.structs.asdict(message).items() if value is not None}
        await self._start(options)

    @handler(StopStream)
    async def stop_stream(self, message: StopStream) -> None:
        """End the stream; nothing happens without one."""
        await self._stop()

    @handler(StartAcquisition, moves=True)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        """Start the stream, and the polled channels of the lab file."""
        await self._start(message.options)
        self.begin_polling()

    @handler(StopAcquisition)
    async def stop_acquisition(self, message: StopAcquisition) -> None:
        """End the stream and the polled channels."""
        await self._stop()
        await super().stop_acquisition(message)

    @handler(Stop, urgent=True)
    async def handle_stop(self, message: Stop) -> None:
        """End the stream at once."""
        await self._stop()

    @handler(SnapFrame, operation=True)
    async def snap_frame(self, message: SnapFrame) -> Image:
        """Take one frame, with the options for this one alone."""
        frame = await self.driver.snap(**message.options)
        return self._image(frame, "snap", self.streams.sequence("snap"))

    @handler(ConfigureRoi)
    async def configure_roi(self, message: ConfigureRoi) -> None:
        """Set the region of interest."""
        await self.configure(roi=message.roi)

    @handler(SetTiming)
    async def set_timing(self, message: SetTiming) -> None:
        """Set the exposure time and mode."""
        options = {} if message.mode is None else {"mode": message.mode}
        await self.configure(exposure_s=message.exposure_s, **options)

    @handler(SetGain)
    async def set_gain(self, message: SetGain) -> None:
        """Set the gain index."""
        await self.configure(gain=message.gain)

    @handler(SetBinning)
    async def set_binning(self, message: SetBinning) -> None:
        """Set the binning."""
        await self.configure(binning=message.binning)

    @handler(GetCapabilities, idempotent=True)
    async def get_capabilities(self, message: GetCapabilities) -> dict[str, Any]:
        """What the camera can do."""
        return await self.driver.read_capabilities()

    @handler(IsStreaming, idempotent=True)
    async def is_streaming(self, message: IsStreaming) -> bool:
        """Whether a stream runs."""
        return self.driver.streaming

    async def measure(self, channel: str) -> Measurement:
        """One frame, taken now, or a channel of the lab file."""
        if channel != _FRAMES:
            return await super().measure(channel)
        frame = await self.driver.snap()
        sequence = self._publish(frame)
        return self._image(frame, _FRAMES, sequence)

    async def _start(self, options: dict[str, Any]) -> None:
        self._stored(await self.driver.start_stream(self._publish, self._ended, **options))
        self.note("streaming", True)
        self.context.report(InstrumentState.ACQUIRING, "")

    def _stored(self, settings: CameraSettings) -> None:
        self.context.memory["camera"] = msgspec.structs.asdict(settings)
        for name, value in msgspec.to_builtins(settings).items():
            if value is not None:
                self.keep(name, value)
        self._note_settings()

    async def _stop(self) -> None:
        if self.driver.streaming:
            await self.driver.stop_stream()
            self.context.report(InstrumentState.READY, "")
        self.note("streaming", False)
        self.note("frames_lost", self.driver.count.lost)

    def _publish(self, frame: Frame) -> int:
        # Runs in the camera's thread; a frame that is refused keeps its number for when there is room.
        numbers: dict[str, int] = self.context.memory.setdefault("sequences", {})
        sequence = numbers.get(_FRAMES, 0)
        batch = frame_batch(
            frame.pixels,
            instrument=self.definition.id,
            channel=_FRAMES,
            t_ns=frame.t_ns,
            sequence=sequence,
            frame_number=frame.number,
            pixel_format=frame.pixel_format,
            roi=msgspec.structs.astuple(frame.roi),
            binning=frame.settings.binning,
            exposure_s=frame.settings.exposure_s,
        )
        self.streams.batch(_FRAMES, batch)
        numbers[_FRAMES] = sequence + 1
        return sequence

    def _ended(self, error: Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is already gone
            self._loop.call_soon_threadsafe(self._say_ended, error)

    def _say_ended(self, error: Exception) -> None:
        text = str(error) if isinstance(error, DuodaqError) else repr(error)
        self.context.memory[_INTERRUPTED] = self.context.memory.pop("acquiring", {})
        self.note("streaming", False)
        self.note("frames_lost", self.driver.count.lost)
        self.context.report(InstrumentState.ERROR, f"the stream ended by itself: {text}")

    def _image(self, frame: Frame, channel: str, sequence: int) -> Image:
        facts = {
            "frame_number": frame.number,
            "pixel_format": frame.pixel_format,
            "roi": msgspec.to_builtins(frame.roi),
            "binning": list(frame.settings.binning),
            "exposure_s": frame.settings.exposure_s,
        }
        return Image(self.definition.id, channel, "counts", frame.t_ns, sequence, frame.pixels, "v4", facts)

    def _note_settings(self) -> None:
        for name, value in msgspec.to_builtins(self.driver.settings).items():
            if value is not None:
                self.note(name, value, "s" if name == "exposure_s" else "")


class _Simulator:
    """The shipped simulator behind PyVCAM's seam, for as many actors as ask for it; gone with the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._ours = False

    def hold(self, table: str | None, seed: int) -> None:
        from duodaq.sim import pvcam  # no part of a lab that has a camera of its own

        with self._lock:
            if not pvcam.installed():
                try:
                    pvcam.install(table=table, seed=seed)
                except ImportError as error:
                    raise ConfigError(
                        f"the simulated camera needs PyVCAM: {error}", key="driver", remedy='Install the extra "demo"'
                    ) from error
                self._ours = True
            self._users += 1

    def release(self) -> None:
        from duodaq.sim import pvcam

        with self._lock:
            self._users -= 1
            if self._users == 0 and self._ours:
                self._ours = False
                pvcam.uninstall()


_simulator = _Simulator()
