"""One acquisition: a thread that produces frames on time into a ring, and the queue that PyVCAM keeps in front of it.

The counts that must agree at every moment: produced = read + dropped + discarded + in the ring. *Dropped* is what the
queue gave up for a newer frame because the reader was slow; *discarded* what lay unread when an acquisition ended. The
ring has a few slots more than the queue, so that the frame just handed out is not written to while it is copied.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duodaq.errors import PortLostError
from duodaq.sim.pvcam._ids import Status
from duodaq.sim.pvcam._picture import FrameRenderer, Region
from duodaq.sim.pvcam._profile import CameraProfile
from duodaq.sim.table import Table

__all__ = ["Acquisition", "Counts", "Frame", "Knobs", "Plan"]

_SPARE_SLOTS = 2
_ALIGNMENT = 4096
_FPS_FRAMES = 5
_CATCH_UP_S = 1.0
_JOIN_S = 5.0
_DEPOSIT_S = 0.1
_FRAME_HEADER_BYTES, _ROI_HEADER_BYTES = 48, 32


@dataclass(slots=True)
class Knobs:
    """How the cameras misbehave; all off by default."""

    stall_after: int | None = None  # a live acquisition dies silently after so many frames: READOUT_NOT_ACTIVE
    stuck_exposure: bool = False  # EXPOSURE_IN_PROGRESS for ever, until the camera is closed and opened again
    fail_after: int | None = None  # READOUT_FAILED after so many frames
    start_error: int | None = None  # starting a live acquisition fails with this PVCAM error (185 has been seen)
    metadata_timeout: bool = False  # with metadata on, no frame ever arrives
    lose_frames: frozenset[int] = frozenset()  # these frame numbers never leave the camera
    speed_up: float = 1.0  # frames come so many times faster than the camera's own pace


@dataclass(slots=True)
class Counts:
    """What became of the frames of one camera since the seam was installed."""

    produced: int = 0
    read: int = 0
    dropped: int = 0
    discarded: int = 0
    lost: int = 0
    acquisitions: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to acquire."""

    regions: tuple[Region, ...]
    exposures_s: tuple[float, ...]
    slots: int
    frames: int | None  # None: live, until it is stopped
    triggered: str  # "internal", "first" or "each": what a frame waits for
    period_s: float
    arm_s: float
    gain: float
    bit_depth: int
    metadata: bool
    path: str | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in the ring, headers included."""
        pixels = sum(2 * ((r[1] - r[0] + 1) // r[2]) * ((r[4] - r[3] + 1) // r[5]) for r in self.regions)
        return pixels + (_FRAME_HEADER_BYTES + _ROI_HEADER_BYTES * len(self.regions) if self.metadata else 0)


@dataclass(slots=True)
class Frame:
    """One frame in the ring."""

    number: int
    count: int
    begin_ns: int
    end_ns: int
    exposure_s: float
    pixels: list[NDArray[np.uint16]] = field(default_factory=list[Any])


class Acquisition:
    """Frames of one plan, from `start` to `stop`. `condition` guards everything that both threads touch."""

    def __init__(
        self,
        plan: Plan,
        profile: CameraProfile,
        table: Table,
        *,
        renderers: list[FrameRenderer],
        knobs: Knobs,
        counts: Counts,
        condition: threading.Condition,
        count_frame: Callable[[], int],
        deposit: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.status = Status.READOUT_NOT_ACTIVE
        self._all_there = False
        self.queue: deque[Frame] = deque()
        self.fresh = False
        self.fps = 0.0
        self.error = ""
        self.stopped = False
        self._profile, self._table, self._knobs, self._counts = profile, table, knobs, counts
        self._condition, self._count_frame, self._deposit = condition, count_frame, deposit
        self._deposited_s = 0.0
        self._triggers = 0
        self._renderers = renderers
        self._ring = np.empty(((plan.slots + _SPARE_SLOTS), plan.frame_bytes), dtype=np.uint8)
        self._file: int | None = None
        self._residual = b""
        self._thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Expose from now on."""
        scene = self._table.scene(self._profile.width)
        for renderer in self._renderers:
            renderer.prepare(scene, self.plan.exposures_s[0], self.plan.gain)
        if self.plan.path is not None:
            self._file = os.open(self.plan.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.status = Status.EXPOSURE_IN_PROGRESS
        self._fps_at, self._fps_frames = time.monotonic(), 0
        self._thread = threading.Thread(target=self._produce, name=f"sim-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; whoever waits for a frame is told. Frames left in the queue count as discarded."""
        with self._condition:
            self.stopped = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            self._thread = None
        with self._condition:
            self._counts.discarded += len(self.queue)
            self.queue.clear()
            self.fresh = False
            self.status = Status.READOUT_NOT_ACTIVE
            self._condition.notify_all()
        self._close_file()

    @property
    def is_under_way(self) -> bool:
        """Whether frames may still come: not stopped, and not all there."""
        return self._thread is not None and self._thread.is_alive() and not self.stopped and not self._all_there

    def trigger(self) -> bool:
        """A trigger arrived, by wire or by software; False if nothing waits for one."""
        with self._condition:
            waiting = not self.stopped and self._thread is not None and self.plan.triggered != "internal"
            if waiting:
                self._triggers += 1
                self._condition.notify_all()
            return waiting

    def take(self, *, oldest: bool) -> Frame:
        """The oldest frame, which leaves the queue, or a look at the newest. The caller holds the condition."""
        if not oldest:
            frame = self.queue[-1]
            self.fresh = True
            return frame
        frame = self.queue.popleft()
        self._counts.read += 1
        self.fresh = bool(self.queue)
        return frame

    def _produce(self) -> None:
        plan, knobs = self.plan, self._knobs
        next_s = time.monotonic() + plan.arm_s / knobs.speed_up
        number = 0
        while self._may_go_on(number):
            number += 1
            if not self._await_trigger(number):
                return
            if plan.triggered == "each" or (plan.triggered == "first" and number == 1):
                next_s = time.monotonic()
            next_s += self._period_s(number) / knobs.speed_up
            if not self._wait_until(next_s):
                return
            if next_s < time.monotonic() - _CATCH_UP_S:
                next_s = time.monotonic()  # the machine slept; a camera would not deliver that past at once
            if number in knobs.lose_frames:
                self._counts.lost += 1
                continue
            try:
                self._deliver(number)
                self._deposit_now_and_then()
            except (PortLostError, OSError) as exc:
                self._fail(str(exc))
                return

    def _may_go_on(self, number: int) -> bool:
        """Whether another frame follows `number`; sets the status in which the camera otherwise comes to rest."""
        knobs = self._knobs
        if self.plan.frames is not None and number >= self.plan.frames:
            return False
        if knobs.stuck_exposure or (knobs.metadata_timeout and self.plan.metadata):
            self._wait_until(float("inf"))
            return False
        if knobs.fail_after is not None and number >= knobs.fail_after:
            self._fail("")
            return False
        if self.plan.frames is None and knobs.stall_after is not None and number >= knobs.stall_after:
            with self._condition:
                self.status = Status.READOUT_NOT_ACTIVE
            return False
        return not self.stopped

    def _fail(self, why: str) -> None:
        with self._condition:
            self.status, self.error = Status.READOUT_FAILED, why
            self._condition.notify_all()

    def _period_s(self, number: int) -> float:
        exposures = self.plan.exposures_s
        return self.plan.period_s + exposures[(number - 1) % len(exposures)] - max(exposures)

    def _await_trigger(self, number: int) -> bool:
        if self.plan.triggered == "internal" or (self.plan.triggered == "first" and number > 1):
            return True
        with self._condition:
            while not self._triggers and not self.stopped:
                self._condition.wait(1.0)
            self._triggers = max(0, self._triggers - 1)
            return not self.stopped

    def _wait_until(self, at_s: float) -> bool:
        """Wait on the camera's clock; False if the acquisition was stopped meanwhile."""
        with self._condition:
            while not self.stopped and (left_s := at_s - time.monotonic()) > 0:
                self._condition.wait(min(left_s, 1.0))
            return not self.stopped

    def _deliver(self, number: int) -> None:
        plan = self.plan
        exposure_s = plan.exposures_s[(number - 1) % len(plan.exposures_s)]
        frame = Frame(number, 0, 0, time.monotonic_ns(), exposure_s)
        frame.begin_ns = frame.end_ns - int(exposure_s * 1e9)
        raw = self._ring[(number - 1) % len(self._ring)]
        scene = self._table.scene(self._profile.width)
        at = _FRAME_HEADER_BYTES if plan.metadata else 0
        for renderer in self._renderers:
            at += _ROI_HEADER_BYTES if plan.metadata else 0
            size = 2 * renderer.shape[0] * renderer.shape[1]
            pixels = raw[at : at + size].view(np.uint16).reshape(renderer.shape)
            renderer.draw(pixels, scene, exposure_s, plan.gain, number)
            frame.pixels.append(pixels)
            at += size
        self._write(raw, number)
        self._push(frame)

    def _push(self, frame: Frame) -> None:
        with self._condition:
            frame.count = self._count_frame()
            self._counts.produced += 1
            self._measure_fps()
            while len(self.queue) >= self.plan.slots:
                self.queue.popleft()
                self._counts.dropped += 1
            self.queue.append(frame)
            self._all_there = frame.number == self.plan.frames
            self.fresh = True
            whole = self.plan.frames is None or frame.number >= self.plan.frames
            self.status = Status.FRAME_AVAILABLE if whole else Status.EXPOSURE_IN_PROGRESS
            self._condition.notify_all()

    def _deposit_now_and_then(self) -> None:
        """The table keeps the counts, so that they survive the death of this process."""
        now_s = time.monotonic()
        if now_s - self._deposited_s > _DEPOSIT_S:
            self._deposited_s = now_s
            self._deposit()

    def _measure_fps(self) -> None:
        self._fps_frames += 1
        if self._fps_frames >= _FPS_FRAMES:
            now_s = time.monotonic()
            if now_s > self._fps_at:
                self.fps = self._fps_frames / (now_s - self._fps_at)
                self._fps_at, self._fps_frames = now_s, 0

    def _write(self, raw: NDArray[np.uint8], number: int) -> None:
        """Stream to disk in whole 4096-byte pieces; at the end of the ring the file is padded to one."""
        if self._file is None:
            return
        data = self._residual + raw.tobytes()
        if number % self.plan.slots == 0:
            data += b"\0" * (-len(data) % _ALIGNMENT)
        whole = len(data) - len(data) % _ALIGNMENT
        self._residual = data[whole:]
        os.write(self._file, data[:whole])

    def _close_file(self) -> None:
        if self._file is not None:
            if self._residual:
                os.write(self._file, self._residual + b"\0" * (-len(self._residual) % _ALIGNMENT))
            os.close(self._file)
            self._file, self._residual = None, b""
