"""Real instruments and end points for the tests of data, concurrency and communication.

Classes for V2 are plain blocking code over a serial object, as a lab would write it; those for V4 are actors. What they
note is the test's own knowledge of what the device said and of what arrived, outside the runtimes under test.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.clock import utc_ns
from duodaq.dataplane import Policy, Subscription
from duodaq.errors import StoppedError
from duodaq.model import Image, InstrumentDefinition, PollDefinition
from duodaq.schema import scalars_of
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

PATIENCE_S = 5.0


class Reading(NamedTuple):
    """What a device answered, and between which moments (UTC ns) its driver was in the call."""

    value: float
    before_ns: int
    after_ns: int


class Meter:
    """A lab's own class for the 1830-C, which notes every reading that the device gave it."""

    def __init__(self, serial: Any, evidence: str) -> None:
        self.serial = serial
        self.evidence = Evidence(evidence)

    def read(self) -> float:
        """The power in W."""
        before_ns = utc_ns()
        self.serial.write(b"D?\n")
        value = float(self.serial.readline())
        self.evidence.note("said", value=value, before_ns=before_ns, after_ns=utc_ns())
        return value

    @property
    def wavelength(self) -> int:
        """The wavelength in nm that it is set to."""
        self.serial.write(b"W?\n")
        return int(self.serial.readline())

    @wavelength.setter
    def wavelength(self, wavelength_nm: int) -> None:
        self.serial.write(b"W%d\n" % wavelength_nm)


def meter(evidence: Evidence, every_s: float = 0.002, **options: Any) -> InstrumentDefinition:
    """V2's power meter on port "meter", channel "power" in W; it acquires when asked to."""
    polls = (PollDefinition("power", every_s, "W", call="read"),)
    args, chosen = {"evidence": evidence.path}, {"acquire": False}
    return InstrumentDefinition("meter", "v2", Meter, port="meter", polls=polls, args=args, options=chosen, **options)


def readings_in(evidence: Evidence) -> list[Reading]:
    """What the device of a `Meter` said, in order."""
    return [Reading(note["value"], note["before_ns"], note["after_ns"]) for note in evidence.read("said")]


class Arrival(NamedTuple):
    """One measurement as it came to an end point.

    Of a frame, `value` is a digest of its pixels, and `address` where they lay in the end point's process.
    """

    instrument: str
    channel: str
    unit: str
    t_ns: int
    sequence: int
    value: Any
    frame_number: int | None = None
    address: int | None = None


class Heard:
    """What an end point got, in the order of arrival, by its own notes; with `opened` it begins to take."""

    def __init__(self, evidence: Evidence, opened: Gate) -> None:
        self.evidence = evidence
        self.opened = opened

    @property
    def args(self) -> dict[str, Any]:
        """What its end point is constructed with."""
        return {"evidence": self.evidence.path, "opened": self.opened.path}

    @property
    def items(self) -> list[Arrival]:
        return [Arrival(**row) for note in self.evidence.read("arrived") for row in note["rows"]]

    @property
    def arrived_ns(self) -> list[int]:
        return [note.t_ns for note in self.evidence.read("arrived")]

    @property
    def missed(self) -> int:
        """How many it was told that it had missed."""
        return sum(note["count"] for note in self.evidence.read("missed"))

    def note_missed(self, count: int) -> None:
        """Its subscription says that it has missed so many."""
        if count:
            self.evidence.note("missed", count=count)

    def __len__(self) -> int:
        return sum(len(note["rows"]) for note in self.evidence.read("arrived"))

    def of(self, stream: str) -> list[Arrival]:
        """The measurements of one stream, as they came."""
        instrument, _, channel = stream.partition(".")
        return [m for m in self.items if (m.instrument, m.channel) == (instrument, channel)]


class EndPoint:
    """Notes what comes, once it is open."""

    def __init__(self, evidence: str, opened: str) -> None:
        self.evidence = Evidence(evidence)
        self.opened = Gate(opened)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Note measurements that came together."""
        self.evidence.note("arrived", rows=[_without_pixels(row) for row in rows])


def row_of(measurement: Any, *, by_value: bool = False) -> dict[str, Any]:
    """A measurement as plain values, for a command to carry; the pixels of a frame stay where they are, or (with
    `by_value`, where the command leaves the process) become bytes.
    """
    row = {name: getattr(measurement, name) for name in ("instrument", "channel", "unit", "t_ns", "sequence")}
    if isinstance(measurement, Image):
        row["frame_number"] = (measurement.metadata or {}).get("frame_number")
        row["pixels"] = measurement.pixels.tobytes() if by_value else measurement.pixels
    else:
        row["value"] = measurement.value
    return row


def digest(pixels: np.ndarray[Any, Any]) -> str:
    """What stands for the pixels of a frame where they are compared."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def address_of(pixels: np.ndarray[Any, Any]) -> int:
    """Where in this process the pixels lie."""
    return int(pixels.__array_interface__["data"][0])


def _without_pixels(row: dict[str, Any]) -> dict[str, Any]:
    if "pixels" not in row:
        return row
    facts = dict(row)
    pixels = facts.pop("pixels")
    if isinstance(pixels, bytes):
        return {**facts, "value": hashlib.sha256(pixels).hexdigest()}
    return {**facts, "value": digest(pixels), "address": address_of(pixels)}


class Take(msgspec.Struct, frozen=True):
    """Take measurements, given as `row_of` gives them."""

    rows: list[dict[str, Any]]


class ListeningActor(InstrumentActor):
    """A V4 end point. It listens to the `streams` of its publisher that its args name, from its start to its stop; or
    it takes what it is handed.
    """

    operations: ClassVar = {"take": Take}

    async def connect(self) -> None:
        """Join the publisher, if there are streams to listen to."""
        args = self.definition.args
        self.end_point = EndPoint(args["evidence"], args["opened"])
        self.rows: Subscription[pa.RecordBatch] | None = None
        if args.get("streams"):
            self.rows = self.context.publisher.subscribe(
                f"{self.definition.id} listens",
                streams=args["streams"],
                capacity=args.get("capacity", 65536),
                policy=Policy(args.get("policy", Policy.DROP_OLDEST.value)),
            )
            self.run_beside(self._listen(self.rows))

    async def disconnect(self) -> None:
        """Leave the publisher."""
        if self.rows is not None:
            self.rows.close()

    @handler(Take)
    async def take(self, message: Take) -> None:
        """Note measurements, once it is open."""
        await self.end_point.opened.reached(PATIENCE_S)
        self.end_point.add(message.rows)

    async def _listen(self, rows: Subscription[pa.RecordBatch]) -> None:
        await self.end_point.opened.reached()
        while True:
            try:
                batch = await rows.get()
            except StoppedError:
                return
            missed = rows.take_missed()
            if missed:
                self.end_point.evidence.note("missed", count=missed)
            self.end_point.add([row_of(scalar) for scalar in scalars_of(batch)])


class Chart:
    """A V2 end point, a lab's own class: it draws each value that it is handed, once it is open."""

    def __init__(self, evidence: str, opened: str) -> None:
        self.end_point = EndPoint(evidence, opened)

    def take(self, rows: list[dict[str, Any]]) -> None:
        """Note measurements."""
        self.end_point.opened.wait(PATIENCE_S)
        self.end_point.add(rows)


def batches_in(subscription: Subscription[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Everything that waits in `subscription` now."""
    return [subscription.get_nowait() for _ in range(subscription.occupancy)]
