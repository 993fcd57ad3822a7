"""The whole of a lab file: which tables may stand in it."""

from __future__ import annotations

from pydantic import Field

from duodaq.config._observing import AlarmTable, FlightTable, LoggingTable, MailTable, MetricsTable, TelemetryTable
from duodaq.config._tables import EMPTY, InstrumentTable, LabTable, PortTable, RuntimesTable, Table, WebTable


class LabFile(Table):
    lab: LabTable = EMPTY
    runtimes: RuntimesTable = EMPTY
    ports: dict[str, PortTable] = Field({})
    instruments: dict[str, InstrumentTable] = Field({})
    web: WebTable = EMPTY
    alarms: dict[str, AlarmTable] = Field({})
    mail: MailTable | None = None
    metrics: MetricsTable | None = None
    logging: LoggingTable | None = None
    telemetry: TelemetryTable | None = None
    flight_recorder: FlightTable = EMPTY
