"""Real instruments and listeners for the tests of data, concurrency and communication.

Classes for V2 are plain blocking code over a serial object, as a lab would write it; those for V4 are actors. What they
note is the test's own knowledge of what the device said and of what arrived, outside the runtimes under test.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import pyarrow as pa

from duodaq.clock import pause, utc_ns
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import StoppedError
from duodaq.model import InstrumentDefinition, Measurement, PollDefinition, Scalar
from duodaq.schema import scalars_of, stream_of
from duodaq.v4.instruments import InstrumentActor

PATIENCE_S = 5.0


class Reading(NamedTuple):
    """What a device answered, and between which moments (UTC ns) its driver was in the call."""

    value: float
    before_ns: int
    after_ns: int


def meter_class(said: list[Reading]) -> type:
    """A lab's own class for the 1830-C, which notes in `said` every reading that the device gave it."""

    class Meter:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def read(self) -> float:
            before_ns = utc_ns()
            self.serial.write(b"D?\n")
            value = float(self.serial.readline())
            said.append(Reading(value, before_ns, utc_ns()))
            return value

        @property
        def wavelength(self) -> int:
            self.serial.write(b"W?\n")
            return int(self.serial.readline())

        @wavelength.setter
        def wavelength(self, wavelength_nm: int) -> None:
            self.serial.write(b"W%d\n" % wavelength_nm)

    return Meter


def meter(said: list[Reading], every_s: float = 0.002, **options: Any) -> InstrumentDefinition:
    """V2's power meter on port "meter", channel "power" in W; it acquires when asked to."""
    polls = (PollDefinition("power", every_s, "W", call="read"),)
    return InstrumentDefinition(
        "meter", "v2", meter_class(said), port="meter", polls=polls, options={"acquire": False}, **options
    )


class Heard:
    """What an end point got, in the order of arrival; from any thread."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.arrived_ns: list[int] = []
        self.missed = 0
        self.opened = threading.Event()
        self.ended = threading.Event()

    def add(self, *items: Any) -> None:
        self.items.extend(items)
        self.arrived_ns.append(utc_ns())

    def __len__(self) -> int:
        return len(self.items)

    def of(self, stream: str) -> list[Any]:
        """The measurements of one stream, as they came."""
        instrument, _, channel = stream.partition(".")
        return [m for m in self.items if (m.instrument, m.channel) == (instrument, channel)]


def listening_actor(heard: Heard, *streams: str, capacity: int = 65536, policy: Policy = Policy.DROP_OLDEST) -> type:
    """A V4 actor that listens to scalar streams of its publisher from its start to its stop.

    With `heard.opened` it begins to take; until then everything waits in its subscription.
    """

    class Listener(InstrumentActor):
        async def connect(self) -> None:
            name = f"{self.definition.id} listens"
            self.rows = self.context.publisher.subscribe(name, streams=streams, capacity=capacity, policy=policy)
            self.run_beside(self._listen(self.rows))

        async def disconnect(self) -> None:
            self.rows.close()

        async def _listen(self, rows: Subscription[pa.RecordBatch]) -> None:
            while not heard.opened.is_set():
                await pause(0.005)
            while True:
                try:
                    batch = await rows.get()
                except StoppedError:
                    return
                heard.missed += rows.take_missed()
                heard.add(*scalars_of(batch))

    return Listener


class Tap:
    """What a V2 class of the test is connected to, known only once the manager is there."""

    def __init__(self) -> None:
        self.v2_data: Hub[Measurement] | None = None
        self.table: Any = None


def listening_class(heard: Heard, tap: Tap, *, capacity: int = 65536, policy: Policy = Policy.DROP_OLDEST) -> type:
    """A V2 class that listens to what V4 produced, while its method `listen` runs.

    It joins V2's distributor when it is constructed, and takes nothing before `heard.opened`; `listen` returns how many
    came, some time after `heard.ended`.
    """

    class Chart:
        def __init__(self) -> None:
            assert tap.v2_data is not None
            self.rows = tap.v2_data.subscribe("chart", capacity=capacity, policy=policy, accepts=_of_v4)

        def listen(self) -> int:
            heard.opened.wait(PATIENCE_S)
            while True:
                try:
                    heard.add(self.rows.get_blocking(0.02))
                except TimeoutError:
                    if heard.ended.is_set():
                        return len(heard)
                except StoppedError:
                    return len(heard)
                heard.missed += self.rows.take_missed()

        def close(self) -> None:
            self.rows.close()

    return Chart


def _of_v4(measurement: Measurement) -> bool:
    return measurement.origin == "v4"


def batches_in(subscription: Subscription[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Everything that waits in `subscription` now."""
    return [subscription.get_nowait() for _ in range(subscription.occupancy)]


def scalars_in(batches: list[pa.RecordBatch], stream: str) -> list[Scalar]:
    """The rows of one scalar stream in `batches`."""
    return [row for batch in batches if stream_of(batch) == stream for row in scalars_of(batch)]
