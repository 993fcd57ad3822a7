"""Work that is still under way when the lab is shut down, and how to find out afterwards what became of it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq.clock import Deadline, block, pause
from duodaq.errors import DeliveryError
from duodaq.model import ComponentReport, Outcome
from duodaq.storage import Recorder, RecordingSummary
from duodaq.testing.coexistence._endpoints import Reading, meter_class
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


def dialling_class(said: list[Reading], dialled: list[int]) -> type:
    """A meter whose wavelength is dialled slowly; notes what the device was really told."""

    base: Any = meter_class(said)

    class Dialler(base):
        def dial(self, wavelength_nm: int) -> int:
            block(DIAL_S)
            dialled.append(wavelength_nm)
            self.wavelength = wavelength_nm
            return wavelength_nm

    return Dialler


def dozing_class(read: list[float]) -> type:
    """A driver whose one method goes on for as long as it is let."""

    class Dozer:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def doze(self, seconds: float) -> None:
            limit = Deadline(seconds)
            while not limit.passed:
                self.serial.write(b"Q?\n")
                read.append(float(self.serial.readline()))
                block(0.02)

    return Dozer


class File(msgspec.Struct, frozen=True):
    """Write `number` into the device, slowly."""

    number: int


def filing_actor(filed: list[int]) -> type[InstrumentActor]:
    """An actor that writes each number it is told into axis 3; notes what it really wrote."""

    class Clerk(InstrumentActor):
        operations = {"file": File}  # noqa: RUF012 - as the base class has it

        @handler(File, moves=True)
        async def file(self, message: File) -> int:
            await pause(DIAL_S)
            filed.append(message.number)
            await self.port.exchange(b"3VA%d\r" % message.number, holder=self.context.holder)
            return message.number

    return Clerk


class Recording:
    """A recorder as the manager closes it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.summary: RecordingSummary | None = None

    async def close(self, timeout_s: float) -> ComponentReport:
        self.summary = await self.recorder.stop(timeout_s)
        return ComponentReport("recording", Outcome.CLEAN if self.summary.complete else Outcome.FORCED)


def plain_rows(directory: Path, name: str) -> dict[str, list[Any]]:
    """The columns of a recorded stream, as plain pyarrow reads them; none if there is no such file."""
    path = directory / f"{name}.arrows"
    if not path.exists():
        return {}
    with pa.OSFile(str(path)) as file, ipc.open_stream(file) as stream:
        return stream.read_all().to_pydict()


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
