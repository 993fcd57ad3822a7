"""From the tables of a lab file to the definitions that the rest of duodaq works with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duodaq.config._lab_file import LabFile
from duodaq.config._observing import AlarmTable, MailTable
from duodaq.config._tables import InstrumentTable, PortTable, RuntimeTable, SerialTable, VirtualTable, WebTable
from duodaq.model import (
    AlarmDefinition,
    AxisDefinition,
    InstrumentDefinition,
    LabDefinition,
    MailDefinition,
    ObserverDefinition,
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
        finalise=tuple(lab.finalise),
        keep_journal=lab.keep_journal,
        shutdown_s=lab.shutdown,
        web=_web(tables.web),
        alarms=tuple(_alarm(name, table) for name, table in tables.alarms.items()),
        mail=_mail(tables.mail) if tables.mail is not None else None,
        observers=_observers(tables, directory),
    )


def _alarm(name: str, table: AlarmTable) -> AlarmDefinition:
    instrument, _, channel = table.channel.partition(".")
    return AlarmDefinition(
        name=name,
        instrument=instrument,
        channel=channel,
        unit=table.unit,
        low=table.low,
        high=table.high,
        rate=table.rate,
        stale_s=table.stale,
        hysteresis=table.hysteresis,
        delay_s=table.delay,
        latch=table.latch,
        pause_scan=table.pause_scan,
        stop_all=table.stop_all,
        webhook=table.webhook,
        email=tuple(table.email),
        note=table.note,
    )


def _mail(table: MailTable) -> MailDefinition:
    host, _, port = table.server.rpartition(":")
    return MailDefinition(host, int(port), table.sender, table.security, table.user, table.password_env)


def _observers(tables: LabFile, directory: Path) -> ObserverDefinition:
    logging, flight = tables.logging, tables.flight_recorder
    return ObserverDefinition(
        metrics_port=None if tables.metrics is None else tables.metrics.port,
        otlp=None if tables.telemetry is None else tables.telemetry.otlp,
        flight_dir=directory / (flight.folder or "flight") if flight.keep else None,
        flight_s=flight.last,
        flight_keep=flight.keep,
        log_file=None if logging is None else directory / logging.file,
        log_bytes=0 if logging is None else logging.max,
        log_keep=0 if logging is None else logging.keep,
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
        limits=dict(table.limits),
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
