"""One simulated camera as the SDK has it: opened, set up, started, asked for frames."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from duodaq.sim.pvcam._acquisition import Acquisition, Counts, Frame, Knobs, Plan
from duodaq.sim.pvcam._ids import Status
from duodaq.sim.pvcam._parameters import Parameters, PvcamError
from duodaq.sim.pvcam._picture import FrameRenderer, Region
from duodaq.sim.pvcam._profile import CameraProfile
from duodaq.sim.table import Table

__all__ = ["SimCamera"]

_BUFFER_LIMIT = 0xFFFFFFFF
_RECHECK_S = 5.0
_KEPT_RENDERERS = 4
_VARIABLE_TIMED = 5
_TRIGGERED = {1792: "internal", 2304: "each", 2048: "first", 2560: "each", 2816: "first", 3072: "each"}
_SOFTWARE = (2816, 3072)


class SimCamera:
    """A camera of one profile that looks at the optical table."""

    def __init__(self, name: str, profile: CameraProfile, table: Table, seed: int, knobs: Knobs) -> None:
        self.name = name
        self.profile = profile
        self.knobs = knobs
        self.counts = Counts()
        self.is_open = False
        self.parameters = Parameters(profile)
        self._table, self._seed = table, seed
        self._condition = threading.Condition()
        self._renderers: OrderedDict[tuple[Region, int], FrameRenderer] = OrderedDict()
        self._plan: Plan | None = None
        self._acquisition: Acquisition | None = None
        self._frame_count = 0

    def open(self) -> None:
        """Open it exclusively."""
        if self.is_open:
            raise PvcamError("The camera is already open")
        self.is_open = True
        self.parameters = Parameters(self.profile)

    def close(self) -> None:
        """Close it; what was under way ends. A stuck camera comes free."""
        self.stop()
        self.is_open = False
        self.knobs.stuck_exposure = False
        self._plan = None

    def set_up(
        self, regions: list[Region], exposure: int, mode: int, *, slots: int, live: bool, path: str | None = None
    ) -> int:
        """Prepare an acquisition; returns the bytes of one frame.

        Raises:
            PvcamError: A region, mode or number of frames that this camera does not have, or one is under way.
            MemoryError: The buffer would be larger than PVCAM can have.
        """
        if self._is_acquiring():
            raise PvcamError("The acquisition is already in progress")
        if slots < 1:
            raise PvcamError("The number of frames is invalid")
        if live and self.knobs.start_error is not None:
            raise PvcamError(f"Failed to set up circular buffer acquisition ({self.knobs.start_error})")
        for region in regions:
            self._check_region(region)
        if len(regions) > self.profile.roi_count:
            raise PvcamError("Too many regions")
        self.parameters.set_modes(mode)
        self._plan = plan = self._planned(tuple(regions), exposure, slots, live, path)
        if plan.frame_bytes * slots > _BUFFER_LIMIT:
            self._plan = None
            raise MemoryError(f"Unable to allocate acquisition buffer for {slots} frame {plan.frame_bytes} bytes each.")
        return plan.frame_bytes

    def start(self) -> None:
        """Start what was set up."""
        plan = self._plan
        if plan is None:
            raise PvcamError("The acquisition has not been set up")
        if self._is_acquiring():
            raise PvcamError("The acquisition is already in progress")
        self.stop()
        if self.parameters.exposure_mode == _VARIABLE_TIMED:
            exposure = self.parameters.vtm_time
            plan = self._planned(plan.regions, exposure, plan.slots, plan.frames is None, plan.path)
        self.counts.acquisitions += 1
        acquisition = Acquisition(
            plan,
            self.profile,
            self._table,
            renderers=[self._renderer(region, plan.bit_depth) for region in plan.regions],
            knobs=self.knobs,
            counts=self.counts,
            condition=self._condition,
            count_frame=self._count_frame,
            deposit=self._deposit,
        )
        self._acquisition = acquisition
        acquisition.start(self.name)

    def stop(self) -> None:
        """End the acquisition; without one nothing happens."""
        if self._acquisition is not None:
            self._acquisition.stop()
            self._acquisition = None
            self._deposit()

    def status(self) -> tuple[Status, bool]:
        """Where the acquisition stands, and whether it is a sequence."""
        acquisition = self._acquisition
        sequence = self._plan is not None and self._plan.frames is not None
        return (acquisition.status if acquisition else Status.READOUT_NOT_ACTIVE), sequence

    def wait_frame(self, timeout_ms: int, *, oldest: bool) -> tuple[Frame, float, bool]:
        """The next frame, frames per second, and whether it carries metadata.

        Raises:
            RuntimeError: In PyVCAM's own words: time-out, not active, aborted, failed.
        """
        with self._condition:
            acquisition = self._acquisition
            if acquisition is None:
                raise RuntimeError("Acquisition not active.")
            self._await(acquisition, timeout_ms)
            self._check(acquisition)
            frame = acquisition.take(oldest=oldest)
            return frame, acquisition.fps, acquisition.plan.metadata

    def trigger(self, *, software: bool) -> bool:
        """A trigger by wire or by software; False if the present mode does not take it now."""
        if software != (self.parameters.exposure_mode in _SOFTWARE):
            return False
        return self._acquisition is not None and self._acquisition.trigger()

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of the present plan."""
        return self._plan.regions if self._plan else ()

    def reset_frame_count(self) -> None:
        """The count that comes with each frame starts again."""
        with self._condition:
            self._frame_count = 0

    def report(self) -> dict[str, Any]:
        """Frames produced, read, dropped, discarded and in the ring: the first is the sum of the others."""
        with self._condition:
            counts = self.counts
            return {
                "model": self.profile.model,
                "produced": {"frame": counts.produced},
                "read": counts.read,
                "dropped": counts.dropped,
                "discarded": counts.discarded,
                "in_ring": len(self._acquisition.queue) if self._acquisition else 0,
                "lost_in_camera": counts.lost,
                "acquisitions": counts.acquisitions,
            }

    def _await(self, acquisition: Acquisition, timeout_ms: int) -> None:
        """Wait as pvc does: woken by frames and by the end, else the status is looked at every five seconds."""
        if timeout_ms == 0:
            return
        end_s = time.monotonic() + timeout_ms / 1e3 if timeout_ms > 0 else float("inf")
        while (
            not acquisition.fresh
            and not acquisition.stopped
            and acquisition.status not in (Status.READOUT_FAILED, Status.READOUT_NOT_ACTIVE)
        ):
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            self._condition.wait(min(left_s, _RECHECK_S))

    @staticmethod
    def _check(acquisition: Acquisition) -> None:
        if acquisition.stopped:
            raise RuntimeError("Acquisition aborted.")
        if acquisition.status is Status.READOUT_FAILED:
            raise RuntimeError("Frame readout failed.")
        if acquisition.status is Status.READOUT_NOT_ACTIVE:
            raise RuntimeError("Acquisition not active.")
        if not acquisition.fresh or not acquisition.queue:
            raise RuntimeError(
                "Frame timeout. Verify the timeout exceeds the exposure time."
                " If applicable, check external trigger source."
            )

    def _is_acquiring(self) -> bool:
        acquisition = self._acquisition
        return acquisition is not None and acquisition.is_under_way

    def _check_region(self, region: Region) -> None:
        s1, s2, sbin, p1, p2, pbin = region
        if not (0 <= s1 <= s2 < self.profile.width and 0 <= p1 <= p2 < self.profile.height):
            raise PvcamError("The region is outside of the sensor")
        if sbin not in self.profile.binnings or pbin not in self.profile.binnings:
            raise PvcamError("The binning is not supported")
        if s2 - s1 + 1 < sbin or p2 - p1 + 1 < pbin:
            raise PvcamError("The region is smaller than one binned pixel")

    def _planned(self, regions: tuple[Region, ...], exposure: int, slots: int, live: bool, path: str | None) -> Plan:
        parameters, profile = self.parameters, self.profile
        exposures = [exposure]
        if parameters.smart_stream and parameters.smart_exposures:
            exposures = parameters.smart_exposures
        parameters.exposure_time = exposure
        seconds = tuple(each * parameters.unit_s for each in exposures)
        rows = max(region[4] for region in regions) - min(region[3] for region in regions) + 1
        readout_s = rows * parameters.speed.row_time_s
        parameters.readout_time_us = readout_s * 1e6
        overlapped = max(max(seconds), readout_s)
        return Plan(
            regions=regions if parameters.metadata else regions[:1],
            exposures_s=seconds,
            slots=slots,
            frames=None if live else slots,
            triggered=_TRIGGERED.get(parameters.exposure_mode, "internal"),
            period_s=(overlapped if live else max(seconds) + readout_s) + profile.frame_overhead_s,
            arm_s=0.0 if live else profile.sequence_arm_s,
            gain=profile.gains[parameters.gain_name],
            bit_depth=parameters.speed.bit_depth,
            metadata=parameters.metadata,
            path=path,
        )

    def _renderer(self, region: Region, bit_depth: int) -> FrameRenderer:
        limit = (1 << bit_depth) - 1
        key = (region, limit)
        renderer = self._renderers.get(key)
        if renderer is None:
            renderer = self._renderers[key] = FrameRenderer(self.profile, self._table, self._seed, region, limit)
            while len(self._renderers) > _KEPT_RENDERERS:
                self._renderers.popitem(last=False)
        return renderer

    def _count_frame(self) -> int:
        self._frame_count += 1
        return self._frame_count

    def _deposit(self) -> None:
        self._table.tally(self.name, self.report())
