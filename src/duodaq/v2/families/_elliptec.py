"""Thorlabs Elliptec by the package thorlabs-elliptec, several devices on one shared line.

Its class opens a serial port by name, or takes another device of its own class whose open port it then shares: that
is its own way of having several on one line. It is given a device that consists of nothing but the shared port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from duodaq.errors import ConfigError
from duodaq.model import InstrumentDefinition
from duodaq.v2.families._attributes import AttributeSurface
from duodaq.v2.families._family import descends
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._plain import check_arguments
from duodaq.v2.families._serial import SharedSerial
from duodaq.v2.families._surface import Limit, Surface

_MOTION_S = 10.0
"""How long the package itself waits for the end of a motion."""
_END_S = 2.0


class ElliptecFamily:
    """``thorlabs_elliptec:ELLx`` and what is derived from it; `args` has ``device_id``, the address."""

    name = "elliptec"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether it is that class."""
        return descends(driver, "thorlabs_elliptec", "ELLx")

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """A device at its address, on the shared line or on a port that it opens itself."""
        del limit  # its calls are its own
        if line is None:
            check_arguments(driver, definition, definition.args)
            return AttributeSurface(driver(**definition.args), _close)
        if "serial_port" in definition.args:
            raise ConfigError(
                "serial_port is given, and so is a port of the lab file",
                key=f"instruments.{definition.id}.args.serial_port",
                remedy="Leave one of them out.",
            )
        serial = SharedSerial(line, definition.options.get("timeout_s", _MOTION_S))
        serial.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]  # the package keeps it there
        serial.device_count = 0  # pyright: ignore[reportAttributeAccessIssue]  # likewise
        neighbour: Any = object.__new__(cast("type[Any]", driver))
        neighbour._port = serial
        check_arguments(driver, definition, {"serial_port": neighbour, **definition.args})
        return AttributeSurface(driver(serial_port=neighbour, **definition.args), _close)


def _close(driver: Any) -> None:
    """End its thread, which polls the device ten times a second. The rotator stays as it is."""
    driver.close()
    driver._thread.join(_END_S)
