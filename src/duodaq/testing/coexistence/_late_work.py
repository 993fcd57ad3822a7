"""Work that is still under way when the lab is shut down, and how to find out afterwards what became of it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq.clock import Deadline, block, pause
from duodaq.errors import DeliveryError
from duodaq.model import ComponentReport, Outcome
from duodaq.storage import Recorder, RecordingSummary
from duodaq.testing.coexistence._endpoints import Meter
from duodaq.testing.coexistence._evidence import Evidence
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

DIAL_S = 0.1


class Ended(NamedTuple):
    """How one accepted operation ended for whoever asked for it."""

    name: Any
    fate: str
    result: Any


def ended(name: Any, result: Any) -> Ended:
    """The fate that `result`, a value or an exception, tells."""
    if isinstance(result, DeliveryError):
        return Ended(name, result.fate, result)
    return Ended(name, "failed" if isinstance(result, BaseException) else "done", result)


class Dialler(Meter):
    """A meter whose wavelength is dialled slowly; notes what the device was really told."""

    def dial(self, wavelength_nm: int) -> int:
        """Dial a wavelength."""
        block(DIAL_S)
        self.evidence.note("dial", number=wavelength_nm)
        self.wavelength = wavelength_nm
        return wavelength_nm


class Dozer:
    """A driver whose one method goes on for as long as it is let."""

    def __init__(self, serial: Any, evidence: str) -> None:
        self.serial = serial
        self.evidence = Evidence(evidence)

    def doze(self, seconds: float) -> None:
        """Read the power now and then."""
        limit = Deadline(seconds)
        while not limit.passed:
            self.serial.write(b"Q?\n")
            self.evidence.note("dozed", power=float(self.serial.readline()))
            block(0.02)


class File(msgspec.Struct, frozen=True):
    """Write `number` into the device, slowly."""

    number: int


class Clerk(InstrumentActor):
    """An actor that writes each number it is told into axis 3; notes what it really wrote."""

    operations: ClassVar = {"file": File}

    @handler(File, moves=True)
    async def file(self, message: File) -> int:
        """Write one number."""
        await pause(DIAL_S)
        Evidence(self.definition.args["evidence"]).note("file", number=message.number)
        await self.port.exchange(b"3VA%d\r" % message.number, holder=self.context.holder)
        return message.number


class Recording:
    """A recorder as the manager closes it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.summary: RecordingSummary | None = None

    async def close(self, timeout_s: float) -> ComponentReport:
        self.summary = await self.recorder.stop(timeout_s)
        return ComponentReport("recording", Outcome.CLEAN if self.summary.complete else Outcome.FORCED)


def plain_rows(directory: Path, name: str) -> dict[str, list[Any]]:
    """The columns of a recorded stream, as plain pyarrow reads them; none if there is no such file. Times are ns."""
    path = directory / f"{name}.arrows"
    if not path.exists():
        return {}
    with pa.OSFile(str(path)) as file, ipc.open_stream(file) as stream:
        table = stream.read_all()
    columns = zip(table.column_names, table.columns, strict=True)
    return {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for name, column in columns
    }


def ask_directly(address: str, question: bytes, timeout_s: float = 2.0) -> str:
    """What the device itself says on its line, once nobody else has it."""
    line = os.open(address, os.O_RDWR | os.O_NOCTTY)
    heard, limit = b"", Deadline(timeout_s)
    try:
        os.write(line, question)
        while b"\n" not in heard and select.select([line], [], [], limit.left_s)[0]:
            heard += os.read(line, 4096)
    finally:
        os.close(line)
    return heard.decode("ascii").strip()


def of_fate(operations: Iterable[Ended], fate: str) -> list[Any]:
    """The names of those that ended so, in the order of asking."""
    return [operation.name for operation in operations if operation.fate == fate]
