"""Which port a VISA resource name means, and what PyVISA is told of it. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from pyvisa import rname
from pyvisa.constants import InterfaceType
from pyvisa.highlevel import ResourceInfo

from duodaq.model import PortDefinition
from duodaq.ports import visa_alias, visa_name

_ALIAS = re.compile(r"duodaq\d*::(.+?)(?:::(?:INSTR|SOCKET))?$", re.IGNORECASE)


def names_of(definition: PortDefinition) -> Iterator[str]:
    """Under which names a port is listed: by its address, if it has one, and by its own name."""
    name = visa_name(definition)
    if name is not None:
        yield name
    yield visa_alias(definition.name)


def find_port(ports: Mapping[str, PortDefinition], name: str) -> PortDefinition | None:
    """The port that `name` means: its own name, ``duodaq::NAME::INSTR``, or the VISA name of its address."""
    wanted = name.strip()
    alias = _ALIAS.match(wanted)
    own = alias[1] if alias else wanted
    if own in ports:
        return ports[own]
    same = [known for known in ports if known.lower() == own.lower()]
    if len(same) == 1:
        return ports[same[0]]
    address = _address(wanted)
    if address is None:
        return None
    for definition in ports.values():
        if address in (_address(visa_name(definition) or ""), _address(definition.name)):
            return definition
    return None


def is_name(name: str) -> bool:
    """Whether `name` can be the name of any resource at all."""
    return bool(_ALIAS.match(name.strip())) or is_address(name)


def is_address(name: str) -> bool:
    """Whether `name` is a VISA address, which means something also where no lab knows it."""
    return _parsed(name.strip()) is not None


def info_of(definition: PortDefinition) -> ResourceInfo:
    """What PyVISA wants to know of a port, to choose the class of its resource."""
    name = visa_name(definition)
    alias = visa_alias(definition.name)
    if definition.tcp is not None:
        return ResourceInfo(InterfaceType.tcpip, 0, "SOCKET", name or alias, definition.name)
    parsed = None if name is None else _parsed(name)
    board = getattr(parsed, "board", "")
    number = int(board) if str(board).isdigit() else None
    if definition.visa is not None:
        kind = InterfaceType.tcpip if parsed is None else InterfaceType(parsed.interface_type_const)
        return ResourceInfo(kind, number, "INSTR" if parsed is None else parsed.resource_class, name, definition.name)
    return ResourceInfo(InterfaceType.asrl, number, "INSTR", name or alias, definition.name)


def _address(name: str) -> tuple[str, ...] | None:
    """What makes a resource name the same as another: a device under any of its links, a host in any case."""
    parsed = _parsed(name)
    if parsed is None:
        return None
    if isinstance(parsed, rname.ASRLInstr):
        return ("ASRL", os.path.realpath(parsed.board) if parsed.board.startswith("/") else parsed.board.upper())
    return tuple(str(parsed).upper().split("::"))


def parts_of(definition: PortDefinition) -> rname.ResourceName | None:
    """The VISA resource that a port is, taken apart; None if it is none, or none that PyVISA can read."""
    return None if definition.visa is None else _parsed(definition.visa.resource)


def _parsed(name: str) -> rname.ResourceName | None:
    try:
        return rname.ResourceName.from_string(name)
    except rname.InvalidResourceName:
        return None
    except (TypeError, IndexError):  # PyVISA's parser meets nothing where it wants a part
        return None
