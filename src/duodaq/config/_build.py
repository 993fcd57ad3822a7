"""From the tables of a lab file to the definitions that the rest of duodaq works with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duodaq.config._tables import InstrumentTable, LabFile, PortTable, RuntimeTable, SerialTable, VirtualTable, WebTable
from duodaq.model import (
    AxisDefinition,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
    RuntimeName,
    VirtualDefinition,
    VisaDefinition,
    WebDefinition,
)

VISA_IDLE_MS = 20.0
"""Within so long of a write, a driver on a VISA resource without codec begins to read, if it wants an answer."""


def build(tables: LabFile, file: Path) -> LabDefinition:
    """The lab that `tables`, read from `file`, describe. Paths in it are relative to the file's folder."""
    directory = file.resolve().parent
    lab = tables.lab
    return LabDefinition(
        name=lab.name or file.stem,
        ports=tuple(_port(name, table, directory) for name, table in tables.ports.items()),
        instruments=tuple(_instrument(id, table, directory) for id, table in tables.instruments.items()),
        v2=_runtime("v2", tables.runtimes.v2),
        v4=_runtime("v4", tables.runtimes.v4),
        directory=directory,
        file=file.resolve(),
        recording_dir=directory / lab.recording if lab.recording is not None else None,
        record_wire=lab.record_wire,
        shutdown_s=lab.shutdown,
        web=_web(tables.web),
    )


def _web(table: WebTable) -> WebDefinition:
    names, arming = tuple(name.lower() for name in table.names), tuple(table.arming)
    return WebDefinition(table.host, table.port, table.token, table.viewer_token, names, arming)


def _runtime(name: RuntimeName, table: RuntimeTable) -> RuntimeDefinition:
    return RuntimeDefinition(name, worker=table.worker, memory_bytes=table.memory)


def _port(name: str, table: PortTable, directory: Path) -> PortDefinition:
    return PortDefinition(
        name=name,
        serial=_serial(table.serial, directory) if table.serial is not None else None,
        tcp=table.visa if isinstance(table.visa, str) else table.tcp,
        codec=table.codec,
        timeout_s=table.timeout,
        idle_ms=_idle_ms(table),
        hold_max_s=table.hold_max,
        visa=table.visa if isinstance(table.visa, VisaDefinition) else None,
        virtual=_virtual(table.virtual, directory) if table.virtual is not None else None,
    )


def _idle_ms(table: PortTable) -> float | None:
    """Messages have an END behind a VISA library: a port there knows where an exchange ends, also without a codec."""
    if table.idle_ms is None and table.codec is None and isinstance(table.visa, VisaDefinition):
        return VISA_IDLE_MS
    return table.idle_ms


def _virtual(table: VirtualTable, directory: Path) -> VirtualDefinition:
    pty = str(directory / table.pty) if table.pty is not None else None
    return VirtualDefinition(pty, table.tcp, table.clients, table.stall)


def _serial(table: SerialTable, directory: Path) -> dict[str, Any]:
    values = table.model_dump(exclude_none=True)
    path = table.path
    if path is not None and "/" in path and not Path(path).is_absolute():
        values["path"] = str(directory / path)
    return values


def _instrument(id: str, table: InstrumentTable, directory: Path) -> InstrumentDefinition:
    return InstrumentDefinition(
        id=id,
        runtime=table.runtime,
        driver=table.driver,
        port=table.port,
        args=table.args,
        settings=table.settings.applied,
        watched=table.settings.watched,
        polls=tuple(
            PollDefinition(channel, every_s=p.every, unit=p.unit, read=p.read, call=p.call, args=tuple(p.args))
            for channel, p in table.poll.items()
        ),
        deadline_s=table.deadline.default,
        method_deadline_s=table.deadline.methods,
        kill_after_s=table.kill_after,
        axes=tuple(AxisDefinition(name, a.number, a.unit, a.limits) for name, a in table.axes.items()),
        safe=table.safe.actions(),
        stop=table.stop,
        passive=table.passive,
        worker=table.worker,
        required=table.required,
        autostart=table.autostart,
        base_dir=directory,
        options=table.options,
    )
