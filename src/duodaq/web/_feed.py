"""The lab's data for all browsers at once: one reader of the hub for rows, and one for each camera that is watched.

However many browsers there are, a row is gathered and an image made 8 bit once; however slow they are, what they do not
take is lost to them alone. Rows go out twenty times a second; an image is made only when somebody has room for it.
Without browsers rows are read five times a second, for the short past that the next one to come is shown at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.app import Lab, LabService
from duodaq.clock import monotonic_s, pause
from duodaq.dataplane import Policy, Subscription
from duodaq.errors import DuodaqError, StoppedError
from duodaq.schema import channel_of, has_pixels, instrument_of, pixels_of, schema_name, stream_of
from duodaq.telemetry import get_logger
from duodaq.web._form import rows_form
from duodaq.web._history import History, thinned
from duodaq.web._pictures import Frame, View, encoded
from duodaq.web._refusal import Refusal
from duodaq.web._traces import MOST_STREAMS, Trace, trace_bytes, trace_of
from duodaq.web._viewer import Viewer, Waiting

ROWS_EVERY_S = 0.05
UNWATCHED_EVERY_S = 0.2
MOST_POINTS = 400
"""Of one stream in one message: more are thinned to the least and the greatest of equal stretches."""
MOST_RAW = 4
CAPABILITIES_S = 2.0
_WAITING = 8192
_MOST_TOLD = 100
_WAITING_BYTES = 64 * 2**20
_log = get_logger("web")
_Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], str]


class Feed:
    """Gives every viewer the rows, the traces and the images that it wants."""

    def __init__(self, lab: Lab, pictures: ThreadPoolExecutor) -> None:
        self._lab = lab
        self._service = LabService(lab)
        self._pictures = pictures
        self._viewers: set[Viewer] = set()
        self._rows: asyncio.Task[None] | None = None
        self._cameras: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._raw = 0
        self._told: set[tuple[str, str, str]] = set()
        self._history = History()
        self._traces: dict[str, Trace] = {}
        self._shared_s = monotonic_s()
        self.values: dict[str, tuple[float, float, str]] = {}
        """The last value of each stream since the page is served: UTC ms, value, unit."""

    def start(self) -> None:
        """Read rows from now on."""
        if self._rows is None or self._rows.done():
            self._rows = asyncio.create_task(self._carry_rows(), name="page-rows")

    def join(self, viewer: Viewer) -> None:
        """From now on `viewer` gets what it wants."""
        self._viewers.add(viewer)
        self.start()

    def leave(self, viewer: Viewer) -> None:
        """`viewer` is gone."""
        self._viewers.discard(viewer)
        self.look_again()

    def want_streams(self, viewer: Viewer, names: frozenset[str]) -> None:
        """`viewer` wants the rows of these streams; what is new to it begins with the last that were."""
        new, viewer.streams = names - viewer.streams, names
        for stream in sorted(new):
            past = self._history.of(stream) if viewer.may_have_past() else None
            if past is not None:
                data = _message(stream, past.unit, past.t_ns, past.values, past=True)
                viewer.offer_rows(Waiting(stream, data, len(past.values)))

    def want_traces(self, viewer: Viewer, names: frozenset[str]) -> None:
        """`viewer` wants the latest of these vectors and spectra; the last that was comes at once."""
        new, viewer.traces = names - viewer.traces, names
        for stream in sorted(new):
            trace = self._traces.get(stream) if viewer.may_have_past() else None
            if trace is not None:
                viewer.offer_image(stream, trace_bytes(trace))

    def forget(self, instrument: str, there: Set[str]) -> None:
        """`instrument` has moved: of what it sent before, only the streams that are still `there` have a value."""
        for stream in [one for one in self.values if one.partition(".")[0] == instrument and one not in there]:
            del self.values[stream]

    def look_again(self) -> None:
        """What viewers want, or have room for, has changed."""
        wanted = {stream for viewer in self._viewers for stream in viewer.views}
        for stream in [one for one, task in self._cameras.items() if one not in wanted or task.done()]:
            self._cameras.pop(stream).cancel()
        for stream in wanted - self._cameras.keys():
            self._cameras[stream] = asyncio.create_task(self._carry_images(stream), name=f"page-{stream}")
        self.make_more()

    def make_more(self) -> None:
        """Something went out: whose credit is not used up has room for another image."""
        self._room.set()

    async def aclose(self) -> None:
        """Read nothing more."""
        tasks = [task for task in (self._rows, *self._cameras.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def raw_frame(self, stream: str, timeout_s: float) -> npt.NDArray[Any] | None:
        """The next frame of a stream as it is, copied; None if none comes in time.

        Raises:
            Refusal: 429, so many are waited for already.
        """
        if self._raw >= MOST_RAW:
            raise Refusal(429, "TooMany", f"{MOST_RAW} whole frames are waited for; ask again")
        self._raw += 1
        reader = self._subscribe(f"page, raw {stream} {monotonic_s():.6f}", stream)
        try:
            return pixels_of(await reader.get(timeout_s))[-1].copy()
        except (TimeoutError, StoppedError):
            return None
        finally:
            self._raw -= 1
            reader.close()

    # ---- rows ----------------------------------------------------------------------------------------------------

    async def _carry_rows(self) -> None:
        reader = self._lab.manager.v4_data.subscribe(
            "page",
            capacity=_WAITING,
            policy=Policy.DROP_OLDEST,
            accepts=lambda batch: not has_pixels(batch),
            max_bytes=_WAITING_BYTES,
        )
        try:
            while True:
                batches = await reader.get_many(_WAITING)
                began_s = monotonic_s()
                self._share(batches)
                every_s = ROWS_EVERY_S if self._viewers else UNWATCHED_EVERY_S
                await pause(max(0.0, every_s - (monotonic_s() - began_s)))
        except StoppedError:
            return
        finally:
            reader.close()

    def _share(self, batches: list[pa.RecordBatch]) -> None:
        found: defaultdict[str, list[list[_Rows]]] = defaultdict(list)  # one after the other, if their unit changes
        traces: dict[str, Trace] = {}
        for batch in batches:
            try:
                for stream, rows in numbers_of(batch):
                    if not found[stream] or found[stream][-1][-1][2] != rows[2]:
                        found[stream].append([])
                    found[stream][-1].append(rows)
                if (trace := trace_of(batch)) is not None:
                    traces[trace.stream] = trace
            except DuodaqError as error:
                self._say_once("a batch cannot be shown", "", error)
        now_s = monotonic_s()
        span_s, self._shared_s = now_s - self._shared_s, now_s
        self._share_traces(traces)
        wanted = {stream for viewer in self._viewers for stream in viewer.streams}
        for stream, parts in ((name, parts) for name, all_parts in found.items() for parts in all_parts):
            t_ns = np.concatenate([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
            values = np.concatenate([part[1] for part in parts]) if len(parts) > 1 else parts[0][1]
            unit = parts[0][2]
            self.values[stream] = (float(t_ns[-1]) / 1e6, float(values[-1]), unit)
            self._history.add(stream, unit, t_ns, values, span_s)
            if stream in wanted:
                message = Waiting(stream, _message(stream, unit, t_ns, values), len(t_ns))
                for viewer in self._viewers:
                    viewer.offer_rows(message)

    def _share_traces(self, traces: dict[str, Trace]) -> None:
        for stream, trace in traces.items():
            if stream not in self._traces and len(self._traces) >= MOST_STREAMS:
                del self._traces[next(iter(self._traces))]
            self._traces[stream] = trace
            viewers = [viewer for viewer in self._viewers if stream in viewer.traces]
            if viewers:
                data = trace_bytes(trace)
                for viewer in viewers:
                    viewer.offer_image(stream, data)

    # ---- images --------------------------------------------------------------------------------------------------

    def _subscribe(self, name: str, stream: str) -> Subscription[pa.RecordBatch]:
        return self._lab.manager.v4_data.subscribe(
            name, capacity=1, policy=Policy.LATEST, streams=[stream], accepts=has_pixels, alarm_at=2.0
        )

    async def _carry_images(self, stream: str) -> None:
        reader = self._subscribe(f"page {stream}", stream)
        try:
            full = await self._full_scale(stream)
            while True:
                while not any(viewer.has_room_for(stream) for viewer in self._viewers):
                    self._room.clear()
                    await self._room.wait()
                frame = frame_of(stream, await reader.get(), full)
                views: defaultdict[View, list[Viewer]] = defaultdict(list)
                for viewer in self._viewers:
                    if viewer.has_room_for(stream):
                        views[viewer.views[stream]].append(viewer)
                for view, viewers in views.items():
                    await self._show(frame, view, viewers)
        except StoppedError:
            return
        finally:
            reader.close()

    async def _full_scale(self, stream: str) -> float | None:
        """The count of a saturated pixel, as the camera says: one of 12 bits fills no 16. None if it does not say."""
        instrument = stream.partition(".")[0]
        fields = {"name": "get_capabilities"}
        asked = {"instrument": instrument, "kind": "execute", "fields": fields, "deadline_s": CAPABILITIES_S}
        try:
            found = await self._service.handle("command", asked)
            return float((1 << int(found["bit_depth"])) - 1)
        except Exception:  # noqa: BLE001 - whatever a driver says to that: then it is what its pixels can hold
            return None

    async def _show(self, frame: Frame, view: View, viewers: list[Viewer]) -> None:
        try:
            data = await asyncio.get_running_loop().run_in_executor(self._pictures, encoded, frame, view)
        except (ValueError, IndexError, TypeError) as error:
            self._say_once("a frame cannot be shown", frame.stream, error)
            return
        for viewer in viewers:
            viewer.offer_image(frame.stream, data)

    def _say_once(self, what: str, stream: str, error: Exception) -> None:
        if (what, stream, repr(error)) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((what, stream, repr(error)))
            _log.warning(what, stream=stream, error=repr(error))


def numbers_of(batch: pa.RecordBatch) -> list[tuple[str, _Rows]]:
    """The streams of numbers that a batch holds: one of scalars, or position and velocity of a stage's axis."""
    name = schema_name(batch.schema)
    if not batch.num_rows or name not in ("scalar/1", "stage/1"):
        return []
    t_ns = batch.column("timestamp").view(pa.int64()).to_numpy(zero_copy_only=False)
    unit = str(batch.column("unit").dictionary[0])
    if name == "scalar/1":
        return [(stream_of(batch), (t_ns, _floats(batch, "value"), unit))]
    axis = f"{instrument_of(batch)}.{channel_of(batch)}"
    return [
        (f"{axis}.position", (t_ns, _floats(batch, "position"), unit)),
        (f"{axis}.velocity", (t_ns, _floats(batch, "velocity"), f"{unit}/s")),
    ]


def frame_of(stream: str, batch: pa.RecordBatch, full: float | None = None) -> Frame:
    """The last frame of a batch; its pixels share the batch's memory. `full` is the count of a saturated pixel."""
    pixels = pixels_of(batch)[-1]
    last = batch.num_rows - 1
    t_ns = int(batch.column("timestamp").view(pa.int64())[last].as_py())
    sequence = int(batch.column("sequence")[last].as_py())
    camera = "frame_number" in batch.schema.names
    number = int(batch.column("frame_number")[last].as_py()) if camera else sequence
    most = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else float("inf")
    return Frame(stream, pixels, t_ns, sequence, number, min(most, full or most))


def _floats(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    return batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _message(
    stream: str, unit: str, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], *, past: bool = False
) -> bytes:
    kind, rows = "past" if past else "rows", len(t_ns)
    if past or rows <= MOST_POINTS:
        form = rows_form(kind, stream, unit)
    else:
        t_ns, values = thinned(t_ns, values, MOST_POINTS)
        form = rows_form(kind, stream, unit, rows)
    return form.filled([pa.array(t_ns / 1e6), pa.array(values)])
