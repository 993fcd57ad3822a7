"""What a person needs to know when a port cannot be opened: which stanza, which device, and who has it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from duodaq.config import line_of
from duodaq.errors import PortBusyError, PortError, PortOpenError
from duodaq.model import LabDefinition
from duodaq.ports import PortState, PortStatus, has_open, programs_holding

LABS_HERE: WeakSet[Any] = WeakSet()
"""The private labs that this program opened and that may still run."""


def explain(error: PortError, lab: LabDefinition, ports: Iterable[PortStatus]) -> PortError:
    """`error` once more, with the port's name, its line in the lab file, its device, and the programs that hold it."""
    found = next((p for p in ports if error.port in (p.name, p.address)), None)
    if found is None or not isinstance(error, PortOpenError | PortBusyError):
        return error
    line = line_of(lab.file, "ports", found.name) if lab.file is not None else None
    place = ":".join(str(part) for part in (lab.file, line) if part is not None)
    where = ": ".join(part for part in (place, f"ports.{found.name}") if part)
    if isinstance(error, PortBusyError) and has_open(os.getpid(), os.path.realpath(found.address)):
        return _open_here(f"{where}: {found.address}", found.address)
    what = f"{where}: {found.address}: {error.what}"
    if isinstance(error, PortOpenError):
        return PortOpenError(what, left=error.left)
    holder = ", ".join(f"process {pid} ({name})" for pid, name in programs_holding(found.address))
    return PortBusyError(f"{what}: {holder}" if holder else what, holder=holder or None, left=error.left)


def _open_here(where: str, address: str) -> PortBusyError:
    """The error of who opens a device twice in one program, most often by running a notebook's cell again."""
    lab = next((lab.definition.name for lab in list(LABS_HERE) if _has(lab.manager.broker.status(), address)), None)
    what = f"{where}: this program has it open already" + (f", as lab {lab}" if lab else "")
    holder = f"this program (process {os.getpid()})"
    return PortBusyError(what, holder=holder, left="lab.close() first" if lab else "close it there first")


def _has(ports: Iterable[PortStatus], address: str) -> bool:
    return any(port.address == address and port.state is not PortState.CLOSED for port in ports)
