"""A lab's own driver for a TTL shutter box."""

from __future__ import annotations

from duodaq.cli.demo.power_meter import SerialLine


class Shutter:
    """Opens and closes the beam."""

    def __init__(self, serial: SerialLine) -> None:
        self.serial = serial

    def open(self) -> bool:
        """Let the light through; whether it is open now."""
        self.serial.write(b"SHUT 1\n")
        return self.is_open()

    def shut(self) -> bool:
        """Block the light; whether it is open now."""
        self.serial.write(b"SHUT 0\n")
        return self.is_open()

    def is_open(self) -> bool:
        """What the box says of itself."""
        self.serial.write(b"SHUT?\n")
        return self.serial.readline().strip() == b"1"
