"""Everything that the page and the API can do to a lab: one place for both, with the roles and bounds of each."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from duodaq.app import Client, Lab, LabService, acting, panel_of
from duodaq.clock import utc_ns
from duodaq.errors import DuodaqError, StorageError
from duodaq.model import Execute, InstrumentDefinition, SetParameter, arms
from duodaq.storage.reading import Run, Stream, differences, facts_of, find_run, runs
from duodaq.telemetry import get_logger, tracing
from duodaq.web._access import Access, Role
from duodaq.web._log import LogTail
from duodaq.web._moving import Moving
from duodaq.web._operations import Operation, Operations
from duodaq.web._refusal import Refusal, refusal_of
from duodaq.web._requests import (
    AcknowledgeRequest,
    CommandRequest,
    ControlRequest,
    LabelRequest,
    ReadRequest,
    RecordRequest,
    Request,
    ResetRequest,
    StopRequest,
)
from duodaq.web._runs import rows_of, scan_facts
from duodaq.web._visitors import LAPSE_S, Visitor, Visitors
from duodaq.web._work import Work

T = TypeVar("T")
_log = get_logger("web")
_KINDS = {"start": "start_acquisition", "finish": "stop_acquisition"}
_MOTIONS = frozenset({"move", "move_absolute", "move_relative", "home"})
_FIELDS: dict[str, tuple[str, ...]] = {
    "set": ("name", "value"),
    "get": ("name",),
    "execute": ("name", "args", "kwargs"),
    "start": ("options",),
    "snap": ("options",),
    "finish": (),
    "recover": (),
}


class Actions:
    """What may be done, by whom. Every method raises Refusal, with the reason, for what was not done."""

    def __init__(self, lab: Lab, access: Access, log: LogTail, files: ThreadPoolExecutor) -> None:
        self.lab = lab
        self.access = access
        self.log = log
        self.operations = Operations()
        self.last_stop: dict[str, Any] | None = None
        """The stop-all that is in force: when, and if it was asked for here what it did and for whom; see `stopped`."""
        self._stops = 0
        self._service = LabService(lab)
        self._files = files
        self.visitors = Visitors(lab)
        self._nobody = Client("page", "page")
        self.work = Work(lab, self._ask, lambda name: self._run(name).path)
        self.moving = Moving(self._ask, self._definition)
        self._by_name: dict[str, tuple[type[Request], Callable[..., Any]]] = {
            "command": (CommandRequest, self.command),
            "read": (ReadRequest, self.read),
            "stop": (StopRequest, self.stop),
            "restart": (Request, self.restart),
            "control": (ControlRequest, self.control),
            "release": (Request, self.release),
            "stop_all": (Request, self.stop_all),
            "reset_stop": (ResetRequest, self.reset_stop),
            "acknowledge": (AcknowledgeRequest, self.acknowledge),
            "record_start": (RecordRequest, self.record_start),
            "record_stop": (Request, self.record_stop),
            "wire_start": (Request, self.wire_start),
            "wire_stop": (Request, self.wire_stop),
            "label": (LabelRequest, self.label),
            **self.work.by_name,
            **self.moving.by_name,
        }
        self._targeted = {
            name for name, (_, act) in self._by_name.items() if len(inspect.signature(act).parameters) == 3
        }

    async def perform(self, visitor: Visitor, name: str, target: str | None, body: Any) -> Any:
        """Do by name what the methods below do: what comes over the live connection.

        Raises:
            Refusal: There is no such action, its body is wrong, he may not, or the lab says no.
        """
        if visitor.role < Role.OPERATOR:
            raise Refusal(403, "ViewerOnly", "this token lets you look, and change nothing")
        found = self._by_name.get(name)
        if found is None:
            raise Refusal(404, "NoSuchAction", f"no action {name!r}; there are {', '.join(self._by_name)}")
        if name == "stop_all":  # whatever else was said with it
            return await self.stop_all(visitor, Request())
        kind, act = found
        try:
            request = kind.model_validate(body or {})
        except ValidationError as error:
            raise Refusal(422, "WrongRequest", in_words(error.errors())) from None
        if name in self._targeted and target is None:
            raise Refusal(422, "WrongRequest", f"{name} needs a target")
        if name not in self._targeted and target is not None:
            raise Refusal(422, "WrongRequest", f"{name} takes no target")
        return await act(visitor, *(() if target is None else (target,)), request)

    # ---- instruments ---------------------------------------------------------------------------------------------

    async def command(self, visitor: Visitor, instrument: str, request: CommandRequest) -> Any:
        """Carry out one command, and wait for it unless it says otherwise."""
        definition = self._definition(instrument)
        fields = {name: getattr(request, name) for name in _FIELDS[request.kind]}
        if "name" in fields and request.name is None:
            raise Refusal(422, "WrongRequest", f"{request.kind} needs a name")
        self._check_arming(instrument, request)
        _check_numbers(request)
        params = {
            "instrument": instrument,
            "kind": _KINDS.get(request.kind, request.kind),
            "fields": fields,
            "deadline_s": request.deadline_s,
        }
        axis = _axis_of(definition, request)
        operation = Operation(0, instrument, request.name or request.kind, visitor.name, 0, axis, _target_of(request))
        look = self._look(instrument, axis) if axis is not None and definition.runtime == "v4" else None
        task = self.operations.begin(operation, lambda: self._ask("command", params, visitor), look)
        if not request.wait:
            return {"operation": operation.number, "result": None}
        return {"operation": operation.number, "result": await asyncio.shield(task)}

    async def read(self, visitor: Visitor, instrument: str, request: ReadRequest) -> Any:
        """Take one measurement now."""
        self._definition(instrument)
        return await self._ask("read", {"instrument": instrument, **request.model_dump()}, visitor)

    async def stop(self, visitor: Visitor, instrument: str, request: StopRequest) -> Any:
        """Stop one instrument, or one of its axes, at once."""
        self._definition(instrument)
        return {"on_wire_ns": await self._ask("stop", {"instrument": instrument, "axis": request.axis})}

    async def restart(self, visitor: Visitor, instrument: str, request: Request) -> Any:
        """Close and start one instrument again."""
        self._definition(instrument)
        await self._ask("restart", {"instrument": instrument}, visitor)
        return {}

    async def control(self, visitor: Visitor, instrument: str, request: ControlRequest) -> Any:
        """Take control of an instrument. Without a connection that stays, a key comes with it."""
        self._definition(instrument)
        key = None
        if not visitor.stays:
            key, visitor = self.visitors.keep(visitor)
        asked = {"instrument": instrument, "name": request.who, "take_over": request.take_over}
        try:
            holder = await self._ask("control", asked, visitor)
        finally:
            self.visitors.forget(visitor.client)
        return {"holder": holder, "key": key, "lapses_s": LAPSE_S if key else None}

    async def release(self, visitor: Visitor, instrument: str, request: Request) -> Any:
        """Give control of an instrument up."""
        self._definition(instrument)
        released = await self._ask("release", {"instrument": instrument}, visitor)
        self.visitors.forget(visitor.client)
        return {"released": released}

    async def stop_all(self, visitor: Visitor, request: Request) -> Any:
        """Stop everything that moves or emits, and latch."""
        _log.warning("stop-all asked for", who=visitor.name)
        report = await self._ask("stop_all", {})
        self.last_stop = {**report, "who": visitor.name, "number": self._stops}
        return report

    def note_stop(self, port: str, epoch: int) -> None:
        """What the broker tells of stops: with no port, that the latch was closed, or (epoch 0) opened."""
        if not port:
            self._stops += bool(epoch)
            self.last_stop = {"t_ns": utc_ns(), "number": self._stops} if epoch else None

    @property
    def stopped(self) -> dict[str, Any] | None:
        """The stop-all that is in force, whoever asked for it: what it did as soon as that is known, and for whom."""
        last, done = self.last_stop, self.lab.last_stop
        if last is None or "on_wire_ns" in last or done is None or done[0].t_ns < last["t_ns"]:
            return last
        report, who = done
        return {**msgspec.to_builtins(report), "who": who, "number": last["number"]}

    async def reset_stop(self, visitor: Visitor, request: ResetRequest) -> Any:
        """Lift the latch of a stop-all, if it is still that one."""
        last = self.last_stop
        if last is not None and request.stop not in (None, last["number"]):
            raise Refusal(409, "AnotherStop", "another stop came since; look what it was for. Nothing was lifted")
        await self._ask("reset_stop", {"who": f"{request.who} ({visitor.name})"})
        return {}

    async def acknowledge(self, visitor: Visitor, alarm: str, request: AcknowledgeRequest) -> Any:
        """Say that somebody knows of an alarm; how it stands then."""
        if alarm not in [one.name for one in self.lab.alarms.status()]:
            raise Refusal(404, "NoSuchAlarm", f"no alarm {alarm!r}")
        who = visitor.name if request.who is None else f"{request.who} ({visitor.name})"
        return await self._ask("acknowledge", {"alarm": alarm, "who": who})

    def panel(self, instrument: str) -> dict[str, Any]:
        """What can be done with an instrument, and whether it may be armed from here."""
        return {**panel_of(self._definition(instrument)), "arming": self.access.may_arm(instrument)}

    # ---- recording and runs --------------------------------------------------------------------------------------

    async def record_start(self, visitor: Visitor, request: RecordRequest) -> Any:
        """Record everything from now on, into a new directory of the lab's."""
        return {"directory": await self._ask("record_start", {"wire": request.wire})}

    async def record_stop(self, visitor: Visitor, request: Request) -> Any:
        """Finish the recording."""
        return await self._ask("record_stop", {})

    async def wire_start(self, visitor: Visitor, request: Request) -> Any:
        """Record what passes the ports into a file of its own."""
        return {"file": await self._ask("wire_start", {})}

    async def wire_stop(self, visitor: Visitor, request: Request) -> Any:
        """End that file."""
        return await self._ask("wire_stop", {})

    async def runs(self, limit: int, text: str) -> list[dict[str, Any]]:
        """The newest runs, the latest first."""
        place = self.lab.runs_directory

        def listed() -> list[dict[str, Any]]:
            if not place.is_dir():
                return []
            return [_told(run) for run in [*runs(place, text=text or None)][-limit:][::-1]]

        return await self._with_files(listed)

    async def run(self, name: str) -> dict[str, Any]:
        """One run: what it is, and its streams."""

        def shown() -> dict[str, Any]:
            run = self._run(name)
            streams = {s.name: {"rows": len(s), "units": s.units, "frames": s.has_frames} for s in run}
            return {**_told(run), "streams": streams, "provenance": run.provenance}

        return await self._with_files(shown)

    async def differences(self, one: str, other: str) -> dict[str, Any]:
        """In what two runs differ."""

        def compared() -> dict[str, Any]:
            return {d.name: [d.ours, d.theirs] for d in differences(self._run(one), self._run(other))}

        return await self._with_files(compared)

    async def rows(self, run: str, stream: str, start: int, rows: int) -> bytes:
        """Some rows of a stream, as an Arrow IPC stream."""
        return await self._with_files(lambda: rows_of(self._stream(run, stream), start, rows))

    async def points(self, run: str, index: int) -> dict[str, Any]:
        """A scan that a run kept, with its points."""

        def told() -> dict[str, Any]:
            scans = self._run(run).scans
            if index >= len(scans):
                raise Refusal(404, "NoSuchScan", f"{run} kept {len(scans)} scans, counted from 0")
            return scan_facts(scans[index])

        return await self._with_files(told)

    def _stream(self, run: str, stream: str) -> Stream:
        streams = {one.name: one for one in self._run(run)}
        if stream not in streams:
            raise Refusal(404, "NoSuchStream", f"no stream {stream!r}; there are: {', '.join(streams) or 'none'}")
        return streams[stream]

    async def label(self, visitor: Visitor, name: str, request: LabelRequest) -> Any:
        """Say what a run was."""

        def labelled() -> dict[str, Any]:
            run = self._run(name)
            run.label(sample=request.sample, operator=request.operator, note=request.note, tags=request.tags)
            return _told(run)

        return await self._with_files(labelled)

    # ---- looking -------------------------------------------------------------------------------------------------

    async def look(self, op: str, params: dict[str, Any] | None = None) -> Any:
        """What the lab's service answers to a question that changes nothing."""
        return await self._ask(op, params or {})

    async def wire(self, port: str, last: int) -> Any:
        """The last records of a port."""
        if port not in self.lab.manager.broker.names():
            raise Refusal(404, "NoSuchPort", f"no port {port!r}")
        return await self._ask("wire_tail", {"port": port, "after": -last, "limit": last})

    # ---- inside --------------------------------------------------------------------------------------------------

    async def _ask(self, op: str, params: dict[str, Any], visitor: Visitor | None = None) -> Any:
        client = self._nobody if visitor is None else visitor.client
        try:
            with tracing(), acting(client), self.visitors.asking(client):
                return await self._service.handle(op, params)
        except DuodaqError as error:
            raise refusal_of(error) from error
        except Exception as error:
            _log.warning("a driver failed", op=op, error=repr(error))
            raise refusal_of(error) from error

    def _look(self, instrument: str, axis: str) -> Callable[[], Any]:
        params = {"instrument": instrument, "kind": "get", "fields": {"name": f"{axis}.position"}, "deadline_s": 2.0}

        async def look() -> None:
            with contextlib.suppress(Exception):  # the motion itself says what is wrong
                await self._service.handle("command", params)

        return look

    def _definition(self, instrument: str) -> InstrumentDefinition:
        try:
            return self.lab.manager.definition(instrument)
        except DuodaqError as error:
            raise Refusal(404, "NoSuchInstrument", str(error)) from error

    def _check_arming(self, instrument: str, request: CommandRequest) -> None:
        name = request.name or ""
        setting = SetParameter(name, request.value) if request.kind == "set" else None
        command = Execute(name, tuple(request.args), request.kwargs) if request.kind == "execute" else setting
        if command is None or self.access.may_arm(instrument):
            return
        if arms(self._definition(instrument), command):
            detail = f'{instrument} is not armed from here; the lab file may allow it: [web] arming = ["{instrument}"]'
            raise Refusal(403, "ArmingRefused", detail)

    def _run(self, name: str) -> Run:
        plain = Path(name).name == name and name not in ("", ".", "..")
        try:
            if not plain or "\0" in name:
                raise StorageError(f"{name!r} is the name of no run")
            return find_run(name, self.lab.runs_directory)
        except (StorageError, OSError) as error:
            raise Refusal(404, "NoSuchRun", str(error)) from error

    async def _with_files(self, work: Callable[[], T]) -> T:
        """`work` in the thread that reads files: disks are slower than instruments."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._files, work)
        except (DuodaqError, OSError, ValueError) as error:
            raise refusal_of(error) from error


def in_words(errors: Any) -> str:
    """What pydantic found wrong, in a line."""
    found = [f"{'.'.join(map(str, e.get('loc', ()))) or 'body'}: {e.get('msg', 'is wrong')}" for e in errors]
    return "; ".join(found[:5])[:500]


def _told(run: Run) -> dict[str, Any]:
    return {**facts_of(run), "name": run.path.name}


def _axis_of(definition: InstrumentDefinition, request: CommandRequest) -> str | None:
    if request.kind != "execute" or request.name not in _MOTIONS:
        return None
    axis = request.kwargs.get("axis", request.args[0] if request.args else None)
    return axis if axis in [a.name for a in definition.axes] else None


def _target_of(request: CommandRequest) -> float | None:
    if request.name not in ("move", "move_absolute") or len(request.args) < 2:
        return None
    target = request.args[1]
    return float(target) if isinstance(target, int | float) else None


def _check_numbers(request: CommandRequest) -> None:
    """Refuse what no instrument counts to, before anything makes a float of it."""
    given = (request.value, *request.args, *request.kwargs.values(), *request.options.values())
    if any(isinstance(one, int) and abs(one) > sys.float_info.max for one in given):
        raise Refusal(422, "WrongRequest", f"a number beyond {sys.float_info.max:.0e} is none for an instrument")
