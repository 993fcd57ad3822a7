"""Everything a client may ask of a lab, by name: the one table behind the control socket and the local client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import msgspec

from duodaq.app._control import Client, acting, acting_client
from duodaq.app._flights import Flights
from duodaq.app._lab import Lab, summary_facts
from duodaq.app._reading import reading_of
from duodaq.app._scan_facts import ScanWish
from duodaq.app._scan_records import ScanRecords
from duodaq.errors import ConfigError, LifecycleError
from duodaq.model import (
    Command,
    DriverMember,
    Execute,
    GetParameter,
    Image,
    InstrumentDefinition,
    Recover,
    Scalar,
    SetParameter,
    SnapFrame,
    Spectrum,
    StartAcquisition,
    StopAcquisition,
    Vector,
)
from duodaq.telemetry import SPANS

MEASURED = frozenset({"scalar", "vector", "spectrum", "image"})
"""Kinds of channel of which one measurement can be taken; the others are streams of rows: stage/1, scpi_event/1."""

Operation = Callable[[dict[str, Any]], Awaitable[Any]]

_PLAIN: dict[str, type[Command]] = {
    "set": SetParameter,
    "get": GetParameter,
    "execute": Execute,
    "start_acquisition": StartAcquisition,
    "stop_acquisition": StopAcquisition,
    "snap": SnapFrame,
    "recover": Recover,
}


class LabService:
    """Answers requests ``(op, params)`` on the lab's own loop. Results are plain values, numbers, bytes and arrays."""

    def __init__(self, lab: Lab, on_shutdown: Callable[[], None] | None = None) -> None:
        self._lab = lab
        self._on_shutdown = on_shutdown
        self._scans = ScanRecords(lab)
        self._flights = Flights(lab)
        self._operations: dict[str, Operation] = {
            name.removeprefix("_op_"): getattr(self, name) for name in dir(self) if name.startswith("_op_")
        }

    async def handle(self, op: str, params: dict[str, Any]) -> Any:
        """Carry out one operation.

        Raises:
            LifecycleError: No such operation, or the lab's state does not allow it.
            DuodaqError: What the operation says.
        """
        operation = self._operations.get(op)
        if operation is None:
            raise LifecycleError(f"no operation {op!r}; there are {', '.join(sorted(self._operations))}")
        if (taker := SPANS.taker) is None:
            return await operation(params)
        with taker.span("request", {"op": op, "instrument": params.get("instrument")}):
            return await operation(params)

    def session(self, client: Client) -> ClientSession:
        """What answers one client, and knows it."""
        return ClientSession(self, self._lab, client)

    async def _op_describe(self, params: dict[str, Any]) -> Any:
        if (client := acting_client()) is not None and (told := params.get("who")):
            client.introduce(str(told["name"]), str(told["kind"]), str(told["place"]))
        manager, known = self._lab.manager, self._lab.definition
        there = [manager.definition(d.id) if manager.has(d.id) else d for d in known.instruments]  # one may be changing
        return {"lab": known.name, "instruments": [_describe(one) for one in there]}

    async def _op_status(self, params: dict[str, Any]) -> Any:
        health = msgspec.to_builtins(self._lab.health(), enc_hook=str)
        directory = self._lab.recording_directory
        recording = str(directory) if directory else None
        alarms = msgspec.to_builtins(self._lab.alarms.status())
        return {
            **health,
            "lab": self._lab.definition.name,
            "stopped_by": self._lab.stopped_by,
            "recording": recording,
            "alarms": alarms,
            "page": self._lab.page,
            "control": await self._op_holders(params),
            "scans": msgspec.to_builtins([one for one in self._lab.scans.all() if one.ended_ns is None]),
        }

    async def _op_holders(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.control.holders())

    async def _op_control(self, params: dict[str, Any]) -> Any:
        name = self._lab.manager.definition(params["instrument"]).id
        take_over = bool(params.get("take_over"))
        holder = self._lab.control.take(name, params.get("name"), take_over=take_over)
        await self._lab.scans.way_given()
        return msgspec.to_builtins(holder)

    async def _op_release(self, params: dict[str, Any]) -> Any:
        return self._lab.control.release(self._lab.manager.definition(params["instrument"]).id)

    async def _op_alarms(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.alarms.status())

    async def _op_acknowledge(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.alarms.acknowledge(params["alarm"], params.get("who", "")))

    async def _op_channels(self, params: dict[str, Any]) -> Any:
        return [
            {**msgspec.to_builtins(channel), "readable": channel.kind in MEASURED}
            for channel in self._lab.manager.channels()
        ]

    async def _op_command(self, params: dict[str, Any]) -> Any:
        kind = _PLAIN.get(params["kind"])
        if kind is None:
            raise LifecycleError(f"no command {params['kind']!r}; there are {', '.join(sorted(_PLAIN))}")
        fields = dict(params.get("fields", {}))
        if "args" in fields:
            fields["args"] = tuple(fields["args"])
        return _plain(await self._lab.command(params["instrument"], kind(**fields), params.get("deadline_s")))

    async def _op_read(self, params: dict[str, Any]) -> Any:
        reading = await self._lab.read(params["instrument"], params["channel"], params.get("deadline_s"))
        return msgspec.structs.asdict(reading)

    async def _op_parameters(self, params: dict[str, Any]) -> Any:
        return [msgspec.structs.asdict(entry) for entry in self._lab.manager.parameters.snapshot()]

    async def _op_presets(self, params: dict[str, Any]) -> Any:
        return self._lab.presets.facts()

    async def _op_preset(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.presets.read(params["name"]))

    async def _op_preset_save(self, params: dict[str, Any]) -> Any:
        note, replace = str(params.get("note", "")), bool(params.get("replace"))
        saved = await self._lab.presets.save(params["name"], params.get("instruments"), note=note, replace=replace)
        return msgspec.to_builtins(saved)

    async def _op_preset_diff(self, params: dict[str, Any]) -> Any:
        if (other := params.get("other")) is not None:
            return msgspec.to_builtins(self._lab.presets.between(params["name"], other))
        return msgspec.to_builtins(await self._lab.presets.diff(params["name"], params.get("instruments")))

    async def _op_preset_load(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.presets.load(params["name"], params.get("instruments")))

    async def _op_preset_remove(self, params: dict[str, Any]) -> Any:
        self._lab.presets.remove(params["name"])

    async def _op_stop(self, params: dict[str, Any]) -> Any:
        return await self._lab.stop(params["instrument"], params.get("axis"))

    async def _op_stop_all(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.stop_all())

    async def _op_reset_stop(self, params: dict[str, Any]) -> Any:
        self._lab.reset_stop(params["who"])

    async def _op_restart(self, params: dict[str, Any]) -> Any:
        self._lab.control.check(params["instrument"], "restart")
        await self._lab.manager.restart_instrument(params["instrument"])

    async def _op_migrate(self, params: dict[str, Any]) -> Any:
        return await self._lab.migration.handle(params)

    async def _op_record_start(self, params: dict[str, Any]) -> Any:
        return str(await self._lab.start_recording(params.get("directory"), wire=params.get("wire")))

    async def _op_record_stop(self, params: dict[str, Any]) -> Any:
        return summary_facts(await self._lab.stop_recording())

    async def _op_log_start(self, params: dict[str, Any]) -> Any:
        return str(await self._lab.log(**params))

    async def _op_log_stop(self, params: dict[str, Any]) -> Any:
        return await self._lab.stop_log(params["name"])

    async def _op_logs(self, params: dict[str, Any]) -> Any:
        return self._lab.logs()

    async def _op_scan_keep(self, params: dict[str, Any]) -> Any:
        return await self._scans.keep(params["run"], params.get("labels", {}), params.get("scan"))

    async def _op_scan_begin(self, params: dict[str, Any]) -> Any:
        asked = (params["axes"], params["read"], params["planned"], params.get("ticket"))
        return msgspec.to_builtins(self._lab.scans.begin(*asked))

    async def _op_scan_point(self, params: dict[str, Any]) -> Any:
        return self._lab.scans.point(params["scan"], params["done"])

    async def _op_scan_end(self, params: dict[str, Any]) -> Any:
        complete, why = bool(params["complete"]), str(params.get("why", ""))[:1000]
        by_hand = bool(params.get("by_hand"))
        ended = self._lab.scans.end(params["scan"], params["done"], complete=complete, why=why, by_hand=by_hand)
        return msgspec.to_builtins(ended)

    async def _op_scan_start(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.scans.start(msgspec.convert(params, ScanWish, strict=False)))

    async def _op_scans(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.scans.all())

    async def _op_scan_status(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.scans.status(params["scan"]))

    async def _op_scan_ended(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.scans.ended(params["scan"], min(params["timeout_s"], 5.0)))

    async def _op_scan_pause(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.scans.pause(params["scan"]))

    async def _op_scan_resume(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.scans.resume(params["scan"]))

    async def _op_scan_abort(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.scans.abort(params["scan"]))

    async def _op_scan_place(self, params: dict[str, Any]) -> Any:
        place = await self._scans.place(params["run"])
        return None if place is None else str(place)

    async def _op_scan_document(self, params: dict[str, Any]) -> Any:
        await self._scans.document(params["run"], params["kind"], params["doc"])

    async def _op_fly(self, params: dict[str, Any]) -> Any:
        return await self._flights.fly(params["flight"], params["instrument"], params["channel"], params.get("options"))

    async def _op_fly_started(self, params: dict[str, Any]) -> Any:
        return await self._flights.started(params["flight"])

    async def _op_fly_land(self, params: dict[str, Any]) -> Any:
        return self._flights.land(params["flight"], params.get("enough"))

    async def _op_ports(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(self._lab.manager.broker.status(), enc_hook=str)

    async def _op_wire_tail(self, params: dict[str, Any]) -> Any:
        """What a port recorded behind number `after`; a negative one: the last so many; none: only what is to come."""
        port, broker = params["port"], self._lab.manager.broker
        source, definition = broker.log_source(port), broker.definitions()[port]
        after = params.get("after")
        if after is None or after < 0:
            kept = source(0)
            after = max(0, (kept[-1].sequence if kept else 0) + (after or 0))
        records = source(after)[: params.get("limit", 1000)]
        return {"codec": definition.codec, "after": after, "records": [msgspec.structs.asdict(r) for r in records]}

    async def _op_wire_start(self, params: dict[str, Any]) -> Any:
        return str(await self._lab.record_wire(params.get("path")))

    async def _op_wire_stop(self, params: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await self._lab.stop_wire())

    async def _op_plan(self, params: dict[str, Any]) -> Any:
        plan = await self._lab.changes.plan(params.get("file"))
        return {**plan.to_dict(), "held": self._lab.changes.held(plan)}

    async def _op_apply(self, params: dict[str, Any]) -> Any:
        return (await self._lab.changes.apply(params.get("file"), params.get("digest"))).to_dict()

    async def _op_shutdown(self, params: dict[str, Any]) -> Any:
        if self._on_shutdown is None:
            raise LifecycleError("this lab ends with the program that opened it")
        self._on_shutdown()


class ClientSession:
    """Answers one client, for as long as it is there."""

    def __init__(self, service: LabService, lab: Lab, client: Client) -> None:
        self.client = client
        self._service = service
        self._lab = lab

    async def handle(self, op: str, params: dict[str, Any]) -> Any:
        """As `LabService.handle`, for this client."""
        if op == "describe" and (ticket := params.get("ticket")) is not None:
            self.client = self._lab.scans.adopt(ticket) or self.client
        with acting(self.client):
            return await self._service.handle(op, params)

    def close(self) -> None:
        """It is gone: what it held is free."""
        self._lab.scans.leave(self.client)
        self._lab.control.leave(self.client, "its connection has ended")


def _plain(result: Any) -> Any:
    """A command's result as plain values: a measurement as its value, a part of a driver by its kind."""
    if isinstance(result, DriverMember):
        return {"member": result.kind}
    if isinstance(result, Scalar | Vector | Spectrum | Image):
        return reading_of(result).value
    if isinstance(result, Enum):
        return result.value
    if isinstance(result, msgspec.Struct):
        return {name: _plain(value) for name, value in msgspec.structs.asdict(result).items()}
    magnitude = getattr(result, "magnitude", None)
    return result if magnitude is None else magnitude


def _describe(definition: InstrumentDefinition) -> dict[str, Any]:
    if not isinstance(definition.driver, str) and not callable(definition.driver):
        raise ConfigError("driver is neither a name nor a class", key=f"instruments.{definition.id}.driver")
    driver = definition.driver
    return {
        "id": definition.id,
        "runtime": definition.runtime,
        "driver": driver if isinstance(driver, str) else getattr(driver, "__qualname__", repr(driver)),
        "port": definition.port,
        "axes": [{"name": a.name, "unit": a.unit, "limits": a.limits} for a in definition.axes],
        "channels": [{"name": p.channel, "unit": p.unit} for p in definition.polls],
    }
