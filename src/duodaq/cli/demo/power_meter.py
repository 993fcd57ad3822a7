"""A lab's own driver for a Newport 1830-C, as it was before duodaq came: it knows a serial line and blocks."""

from __future__ import annotations

from typing import Protocol


class SerialLine(Protocol):
    """What it uses of pyserial."""

    def write(self, data: bytes, /) -> int | None: ...

    def readline(self) -> bytes: ...


class PowerMeter:
    """Reads watts."""

    def __init__(self, serial: SerialLine) -> None:
        self.serial = serial
        self.serial.write(b"E0\n")
        self.serial.write(b"U1\n")
        self.serial.write(b"F3\n")

    def read_power(self) -> float:
        """The power at the detector, in W."""
        self.serial.write(b"D?\n")
        return float(self.serial.readline())

    def set_wavelength(self, wavelength_nm: int) -> None:
        """Tell the meter what light it sees."""
        self.serial.write(b"W%04d\n" % wavelength_nm)
