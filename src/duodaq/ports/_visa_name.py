from __future__ import annotations

from duodaq.model import PortDefinition


def visa_alias(port: str) -> str:
    """The VISA resource name under which every port of a lab can be opened by its own name."""
    return f"duodaq::{port}::INSTR"


def visa_name(definition: PortDefinition) -> str | None:
    """The VISA resource name of a port's address.

    None for a line that is told by what is plugged in, not by where, and for an IPv6 host, whose colons VISA's grammar
    takes for its own.
    """
    if definition.visa is not None:
        return definition.visa.resource
    if definition.tcp is not None:
        host, _, port = definition.tcp.rpartition(":")
        return None if ":" in host else f"TCPIP0::{host}::{port}::SOCKET"
    path = (definition.serial or {}).get("path")
    if path is None:
        return None
    board = str(path)[3:] if str(path).upper().startswith("COM") else str(path)
    return f"ASRL{board}::INSTR"
