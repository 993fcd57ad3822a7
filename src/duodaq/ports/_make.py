from __future__ import annotations

from duodaq.errors import ConfigError
from duodaq.model import PortDefinition
from duodaq.ports._serial import SerialTransport
from duodaq.ports._tcp import TcpTransport
from duodaq.ports._transport import Transport
from duodaq.ports._visa import VisaTransport
from duodaq.ports._visa_workers import PortWorkers


def make_transport(definition: PortDefinition, workers: PortWorkers | None = None) -> Transport:
    """The transport that a port's definition asks for, closed; `workers` is where a VISA library may run.

    Raises:
        ConfigError: It asks for none, for two, or with settings that do not exist.
    """
    if sum(way is not None for way in (definition.serial, definition.tcp, definition.visa)) != 1:
        raise ConfigError(f"port '{definition.name}' needs serial, tcp or visa", remedy="Set exactly one of them.")
    if definition.visa is not None:
        return VisaTransport(definition.visa, workers or PortWorkers())
    if definition.tcp is not None:
        return TcpTransport.from_address(definition.tcp)
    settings = dict(definition.serial or {})
    if (settings.get("path") is None) == (settings.get("usb") is None):
        raise ConfigError(
            f"serial port '{definition.name}' needs either a path or usb", remedy="Set exactly one of them."
        )
    try:
        return SerialTransport(**settings)
    except TypeError as error:
        raise ConfigError(f"serial port '{definition.name}': {error}", remedy="Remove that setting.") from error
