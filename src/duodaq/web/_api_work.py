"""The routes of scans, presets, logs, jobs and the data of runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi.params import Query

from duodaq.web._actions import Actions
from duodaq.web._answers import Answer, Anything, RunName, refusals, visitor_of
from duodaq.web._requests import (
    ExportRequest,
    LogRequest,
    Nothing,
    PresetLoadRequest,
    PresetSaveRequest,
    RecoverRequest,
    ScanRequest,
)

Number = Annotated[int, InPath(ge=0, le=2**53)]
PresetName = Annotated[str, InPath(max_length=200)]
ARROW = "application/vnd.apache.arrow.stream"


def add_work(app: FastAPI, actions: Actions) -> None:
    """All of them."""
    _scans(app, actions)
    _presets(app, actions)
    _logs(app, actions)
    _jobs(app, actions)
    _data(app, actions)


def _scans(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["scans"], "response_class": Answer}

    @app.get("/api/scans", response_model=list[Anything], responses=refusals(), tags=["scans"])
    async def scans() -> Answer:
        """Every scan under way, whoever began it, and the last that ended: points done, state, what it waits for."""
        return Answer(await actions.look("scans"))

    @app.post("/api/scans", responses=refusals(404, 409, 424), **done)
    async def start(body: ScanRequest, request: Request) -> Answer:
        """Begin a scan, which the lab carries out and records; it has control of what it moves. Limits come first."""
        return Answer(await actions.work.scan_start(visitor_of(actions, request), body))

    @app.get("/api/scans/{number}", responses=refusals(404), **done)
    async def scan(number: Number) -> Answer:
        """One scan."""
        return Answer(await actions.work.scan(number))

    @app.post("/api/scans/{number}/pause", responses=refusals(404, 409), **done)
    async def pause(number: Number, request: Request) -> Answer:
        """Have it wait before its next point; what moves arrives."""
        return Answer(await actions.work.scan_pause(visitor_of(actions, request), number, Nothing()))

    @app.post("/api/scans/{number}/resume", responses=refusals(404, 409), **done)
    async def resume(number: Number, request: Request) -> Answer:
        """Have it go on."""
        return Answer(await actions.work.scan_resume(visitor_of(actions, request), number, Nothing()))

    @app.post("/api/scans/{number}/abort", responses=refusals(404, 409), **done)
    async def abort(number: Number, request: Request) -> Answer:
        """Stop what it moves, at once, and end it; its points are kept."""
        return Answer(await actions.work.scan_abort(visitor_of(actions, request), number, Nothing()))


def _presets(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["presets"], "response_class": Answer}

    @app.get("/api/presets", response_model=list[Anything], responses=refusals(), tags=["presets"])
    async def presets() -> Answer:
        """The presets: when each was saved, by whom, and what it is about."""
        return Answer(await actions.look("presets"))

    @app.post("/api/presets", responses=refusals(404, 409, 424), **done)
    async def save(body: PresetSaveRequest, request: Request) -> Answer:
        """Read every setting from its device and keep it under a name."""
        return Answer(await actions.work.preset_save(visitor_of(actions, request), body))

    @app.get("/api/presets/{preset}", responses=refusals(404), **done)
    async def preset(preset: PresetName) -> Answer:
        """One preset: its settings and units by instrument."""
        return Answer(await actions.work.preset(preset))

    @app.get(
        "/api/presets/{preset}/diff", response_model=list[Anything], responses=refusals(404, 424), tags=["presets"]
    )
    async def diff(preset: PresetName, other: Annotated[str | None, Query(max_length=200)] = None) -> Answer:
        """What loading it would change, read from the devices: `now`, `then`, and `what` would be done, row by row.

        With `other`, how that preset differs from it.
        """
        return Answer(await actions.work.preset_diff(preset, other))

    @app.post(
        "/api/presets/{preset}/load",
        response_model=list[Anything],
        responses=refusals(404, 409, 424),
        response_class=Answer,
        tags=["presets"],
    )
    async def load(preset: PresetName, request: Request, body: PresetLoadRequest | None = None) -> Answer:
        """Set what a preset has: all of it or, if anything is beyond its limits, nothing. What may emit is left."""
        return Answer(await actions.work.preset_load(visitor_of(actions, request), preset, body or PresetLoadRequest()))

    @app.post("/api/presets/{preset}/remove", responses=refusals(404, 424), **done)
    async def remove(preset: PresetName, request: Request) -> Answer:
        """Remove one."""
        return Answer(await actions.work.preset_remove(visitor_of(actions, request), preset, Nothing()))


def _logs(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["recording"], "response_class": Answer}

    @app.get("/api/logs", response_model=list[Anything], responses=refusals(), tags=["recording"])
    async def logs() -> Answer:
        """The logs for weeks that are under way."""
        return Answer(await actions.look("logs"))

    @app.post("/api/logs", responses=refusals(409, 424), **done)
    async def start(body: LogRequest, request: Request) -> Answer:
        """Record for weeks, beside any other recording, in the lab's folder for runs."""
        return Answer(await actions.work.log_start(visitor_of(actions, request), body))

    @app.post("/api/logs/{log}/stop", responses=refusals(404, 409, 424), **done)
    async def stop(log: Annotated[str, InPath(max_length=200)], request: Request) -> Answer:
        """End a log."""
        return Answer(await actions.work.log_stop(visitor_of(actions, request), log, Nothing()))


def _jobs(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["recording"], "response_class": Answer}

    @app.get("/api/jobs", response_model=list[Anything], responses=refusals(), tags=["recording"])
    async def jobs() -> Answer:
        """Exports and repairs: those in hand, and the last that ended."""
        return Answer(actions.work.jobs.all())

    @app.get("/api/jobs/{number}", responses=refusals(404), **done)
    async def job(number: Number) -> Answer:
        """One of them: its `state`, and in `result` what was made or found."""
        return Answer(actions.work.jobs.of(number))

    @app.post("/api/jobs/{number}/cancel", responses=refusals(404), **done)
    async def cancel(number: Number, request: Request) -> Answer:
        """Cut it off; what it had finished stays."""
        return Answer(await actions.work.job_cancel(visitor_of(actions, request), number, Nothing()))

    @app.post("/api/runs/{run}/export", responses=refusals(404, 409, 424), **done)
    async def export(run: RunName, body: ExportRequest, request: Request) -> Answer:
        """Write a run in other forms, into its own directory: the job that does it. What it writes it reads back."""
        return Answer(await actions.work.export(visitor_of(actions, request), run, body))

    @app.post("/api/runs/recover", responses=refusals(409, 424), **done)
    async def recover(request: Request, body: RecoverRequest | None = None) -> Answer:
        """Finish what crashes interrupted, in the lab's folder for runs: the job that does it."""
        return Answer(await actions.work.recover(visitor_of(actions, request), body or RecoverRequest()))


def _data(app: FastAPI, actions: Actions) -> None:
    @app.get(
        "/api/runs/{run}/streams/{stream}",
        responses={**refusals(404, 424), 200: {"content": {ARROW: {}}, "description": "An Arrow IPC stream."}},
        response_class=Response,
        tags=["recording"],
    )
    async def rows(
        run: RunName,
        stream: Annotated[str, InPath(max_length=400)],
        start: Annotated[int, Query(ge=0, le=2**53)] = 0,
        rows: Annotated[int, Query(ge=0, le=100_000)] = 10_000,
    ) -> Response:
        """Rows of a stream of a run, from the `start`-th on, as Arrow; the last ones end it early."""
        return Response(await actions.rows(run, stream, start, rows), media_type=ARROW)

    @app.get("/api/runs/{run}/scans/{index}", response_model=Anything, responses=refusals(404, 424), tags=["recording"])
    async def points(run: RunName, index: Annotated[int, InPath(ge=0, le=2**31)]) -> Answer:
        """A scan that a run kept: its axes, units, metadata, and its points, column by column."""
        return Answer(await actions.points(run, index))
