from __future__ import annotations

from duodaq.errors import ConfigError
from duodaq.model import PortDefinition
from duodaq.ports._serial import SerialTransport
from duodaq.ports._tcp import TcpTransport
from duodaq.ports._transport import Transport


def make_transport(definition: PortDefinition) -> Transport:
    """The transport that a port's definition asks for, closed.

    Raises:
        ConfigError: It asks for none, for two, or with settings that do not exist.
    """
    if (definition.serial is None) == (definition.tcp is None):
        raise ConfigError(f"port '{definition.name}' needs either serial or tcp", remedy="Set exactly one of them.")
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
