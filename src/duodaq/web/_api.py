"""The HTTP API, route by route. Each is a line or two: what is done is in `Actions`, what is let in in `Gate`."""

from __future__ import annotations

import io
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from duodaq.app import exposition
from duodaq.telemetry import CONTENT_TYPE, OPENMETRICS_TYPE, wants_openmetrics
from duodaq.web._access import Role
from duodaq.web._actions import Actions, in_words
from duodaq.web._answers import Answer, Anything, RunName, refusals, visitor_of
from duodaq.web._api_moving import add_moving
from duodaq.web._api_work import add_work
from duodaq.web._feed import Feed
from duodaq.web._gate import Gate
from duodaq.web._live import Live
from duodaq.web._moment import Moment
from duodaq.web._refusal import Refusal
from duodaq.web._requests import (
    AcknowledgeRequest,
    CommandRequest,
    ControlRequest,
    LabelRequest,
    Nothing,
    ReadRequest,
    RecordRequest,
    ResetRequest,
    SessionRequest,
    StopRequest,
)
from duodaq.web._visitors import visitor_at

VERSION = version("duodaq")
STATIC = Path(__file__).parent / "static"
SESSION_S = 30 * 86400
FRAME_S = 5.0

_TEMPLATE = "{instrument}"
Instrument = Annotated[str, InPath(max_length=200, description="Its name in the lab file.")]
Level = Literal["info", "warning", "error", "critical"]


def make_app(actions: Actions, feed: Feed, moment: Moment, live: Live, per_s: float) -> Any:
    """The whole application: the API, the live connection, and the page's own files, behind the gate."""
    app = FastAPI(
        title="duodaq",
        version=VERSION,
        description="Everything that the page and the command line do to a running lab.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        default_response_class=Answer,
        redirect_slashes=False,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _not_routed)
    gate = Gate(app, actions.access, actions.visitors, per_s)
    _looking(app, actions, feed, moment)
    _doing(app, actions)
    _alarms(app, actions)
    _metrics(app, actions)
    _runs(app, actions)
    add_work(app, actions)
    add_moving(app, actions)
    _session(app, actions, gate)

    async def connect(socket: WebSocket) -> None:
        seen = actions.visitors.of(socket.state, None)
        await live.serve(socket, visitor_at(seen.role, seen.peer, stays=True))

    app.add_api_websocket_route("/api/live", connect)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return gate


def _looking(app: FastAPI, actions: Actions, feed: Feed, moment: Moment) -> None:
    @app.get("/api/lab", response_model=Anything, responses=refusals(), tags=["lab"])
    async def lab(request: Request) -> Answer:
        """What does not change: the lab's name, its instruments, and what can be done with each."""
        return Answer(await moment.facts(visitor_of(actions, request)))

    @app.get("/api/status", response_model=Anything, responses=refusals(), tags=["lab"])
    async def status() -> Answer:
        """The whole lab at this moment: both runtimes, workers, instruments, ports, ledgers."""
        return Answer(await actions.look("status"))

    @app.get("/api/channels", response_model=list[Anything], responses=refusals(), tags=["lab"])
    async def channels() -> Answer:
        """Every channel of both runtimes, with its unit."""
        return Answer(await actions.look("channels"))

    @app.get("/api/parameters", response_model=list[Anything], responses=refusals(), tags=["lab"])
    async def parameters() -> Answer:
        """The parameter table."""
        return Answer(await actions.look("parameters"))

    @app.get("/api/control", response_model=Anything, responses=refusals(), tags=["lab"])
    async def holders() -> Answer:
        """Who holds control, by instrument; what nobody holds is free for all, and not in it."""
        return Answer(await actions.look("holders"))

    @app.get("/api/operations", response_model=list[Anything], responses=refusals(), tags=["lab"])
    async def operations() -> Answer:
        """What was asked here of instruments: what is in hand, and how the last ones ended."""
        return Answer(actions.operations.all())

    @app.get("/api/log", response_model=list[Anything], responses=refusals(), tags=["lab"])
    async def log(
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        level: Level = "info",
        text: Annotated[str, Query(max_length=200)] = "",
    ) -> Answer:
        """The newest lines of the lab's log, behind a number, of a level or worse, in which a text occurs."""
        return Answer(actions.log.after(after, limit, level, text))

    @app.get("/api/ports", response_model=list[Anything], responses=refusals(), tags=["ports"])
    async def ports() -> Answer:
        """Every port: who holds it, who waits, its counts."""
        return Answer(await actions.look("ports"))

    @app.get("/api/ports/{port}/wire", response_model=Anything, responses=refusals(404), tags=["ports"])
    async def wire(
        port: Annotated[str, InPath(max_length=200)], last: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> Answer:
        """What passed a port last. `data` is one character for each byte."""
        return Answer(await actions.wire(port, last))

    @app.get(
        "/api/streams/{stream}/frame",
        responses={**refusals(404), 200: {"content": {"application/octet-stream": {}}, "description": "A .npy file."}},
        response_class=Response,
        tags=["lab"],
    )
    async def frame(
        stream: Annotated[str, InPath(max_length=400)], timeout_s: Annotated[float, Query(gt=0, le=30)] = FRAME_S
    ) -> Response:
        """The next frame of a camera as it is, not scaled, as a .npy file."""
        pixels = await feed.raw_frame(stream, timeout_s)
        if pixels is None:
            raise Refusal(404, "NoFrame", f"no frame came on {stream!r} within {timeout_s:g} s")
        file = io.BytesIO()
        np.save(file, pixels)
        return Response(file.getvalue(), media_type="application/octet-stream")


def _doing(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["do"], "response_class": Answer}
    base = f"/api/instruments/{_TEMPLATE}"

    @app.get(f"{base}/panel", response_model=Anything, responses=refusals(404), tags=["lab"])
    async def panel(instrument: Instrument) -> Answer:
        """What can be done with an instrument: its axes, settings and operations."""
        return Answer(actions.panel(instrument))

    @app.post(f"{base}/command", responses=refusals(404, 409, 424), **done)
    async def command(instrument: Instrument, body: CommandRequest, request: Request) -> Answer:
        """Carry out one command. Limits are enforced before anything is sent."""
        return Answer(await actions.command(visitor_of(actions, request), instrument, body))

    @app.post(f"{base}/read", responses=refusals(404, 409, 424), **done)
    async def read(instrument: Instrument, body: ReadRequest, request: Request) -> Answer:
        """Take one measurement now; it is published and recorded too."""
        return Answer(await actions.read(visitor_of(actions, request), instrument, body))

    @app.post(f"{base}/stop", responses=refusals(404, 409, 424), **done)
    async def stop(instrument: Instrument, request: Request, body: StopRequest | None = None) -> Answer:
        """Stop an instrument, or one of its axes, at once. It is never too many."""
        return Answer(await actions.stop(visitor_of(actions, request), instrument, body or StopRequest()))

    @app.post(f"{base}/control", responses=refusals(404, 409), **done)
    async def control(instrument: Instrument, request: Request, body: ControlRequest | None = None) -> Answer:
        """Take control: from others, what moves, emits or sets is refused; they may read and stop.

        The answer's `key` goes with later requests, in the header `X-Duodaq-Key`; without any for `lapses_s` seconds
        control is free again. Without `take_over` it is refused while somebody else has control.
        """
        return Answer(await actions.control(visitor_of(actions, request), instrument, body or ControlRequest()))

    @app.post(f"{base}/release", responses=refusals(404, 409), **done)
    async def release(instrument: Instrument, request: Request) -> Answer:
        """Give control up; `released` says whether there was any."""
        return Answer(await actions.release(visitor_of(actions, request), instrument, Nothing()))

    @app.post(f"{base}/restart", responses=refusals(404, 409, 424), **done)
    async def restart(instrument: Instrument, request: Request) -> Answer:
        """Close an instrument and start it again; the others notice nothing."""
        return Answer(await actions.restart(visitor_of(actions, request), instrument, Nothing()))

    @app.post("/api/stop-all", responses=refusals(409, 424), **done)
    async def stop_all(request: Request) -> Answer:
        """Stop everything that moves or emits, now, and latch. It is never too many."""
        return Answer(await actions.stop_all(visitor_of(actions, request), Nothing()))

    @app.post("/api/stop-all/reset", responses=refusals(409, 424), **done)
    async def reset(body: ResetRequest, request: Request) -> Answer:
        """Lift the latch: what moves or emits is accepted again."""
        return Answer(await actions.reset_stop(visitor_of(actions, request), body))


def _alarms(app: FastAPI, actions: Actions) -> None:
    @app.get("/api/alarms", response_model=list[Anything], responses=refusals(), tags=["alarms"])
    async def alarms() -> Answer:
        """Every alarm as it stands: its state and since when, why, the last value with its unit, and who knows."""
        return Answer(await actions.look("alarms"))

    @app.post(
        "/api/alarms/{alarm}/acknowledge",
        response_model=Anything,
        responses=refusals(404, 409),
        response_class=Answer,
        tags=["alarms"],
    )
    async def acknowledge(
        alarm: Annotated[str, InPath(max_length=200)], request: Request, body: AcknowledgeRequest | None = None
    ) -> Answer:
        """Say that somebody knows of an alarm; how it stands then."""
        return Answer(
            await actions.acknowledge(visitor_of(actions, request), alarm, body or AcknowledgeRequest(who=None))
        )


def _metrics(app: FastAPI, actions: Actions) -> None:
    kinds: dict[str, Any] = {kind.partition(";")[0]: {} for kind in (CONTENT_TYPE, OPENMETRICS_TYPE)}

    @app.get(
        "/metrics",
        responses={**refusals(424), 200: {"content": kinds, "description": "Prometheus' text, or OpenMetrics'."}},
        response_class=Response,
        tags=["lab"],
    )
    async def metrics(request: Request) -> Response:
        """Every figure of the lab at this moment, for Prometheus; as OpenMetrics if the Accept header asks for it."""
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        try:
            text = exposition(actions.lab, openmetrics=openmetrics)
        except ModuleNotFoundError as error:
            raise Refusal(424, "NotInstalled", f"metrics need {error.name}, which is not installed here") from error
        return Response(text, media_type=OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE)


def _runs(app: FastAPI, actions: Actions) -> None:
    done: dict[str, Any] = {"response_model": Anything, "tags": ["recording"], "response_class": Answer}

    @app.post("/api/recording/start", responses=refusals(409, 424), **done)
    async def record_start(request: Request, body: RecordRequest | None = None) -> Answer:
        """Record every channel from now on, in a new directory of the lab's folder for runs."""
        return Answer(await actions.record_start(visitor_of(actions, request), body or RecordRequest(wire=None)))

    @app.post("/api/recording/stop", responses=refusals(409, 424), **done)
    async def record_stop(request: Request) -> Answer:
        """Finish the recording; how many rows each of its files holds."""
        return Answer(await actions.record_stop(visitor_of(actions, request), RecordRequest(wire=None)))

    @app.post("/api/wire/start", responses=refusals(409, 424), **done)
    async def wire_start(request: Request) -> Answer:
        """Record what passes the ports into a file of its own."""
        return Answer(await actions.wire_start(visitor_of(actions, request), RecordRequest(wire=None)))

    @app.post("/api/wire/stop", responses=refusals(409, 424), **done)
    async def wire_stop(request: Request) -> Answer:
        """End that file."""
        return Answer(await actions.wire_stop(visitor_of(actions, request), RecordRequest(wire=None)))

    @app.get("/api/runs", response_model=list[Anything], responses=refusals(424), tags=["recording"])
    async def runs(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, text: Annotated[str, Query(max_length=200)] = ""
    ) -> Answer:
        """Recorded runs, the latest first; those in whose labels, name or number every word of `text` occurs."""
        return Answer(await actions.runs(limit, text))

    @app.get("/api/runs/{run}", response_model=Anything, responses=refusals(404, 424), tags=["recording"])
    async def run(run: RunName) -> Answer:
        """One run: its labels, streams and provenance."""
        return Answer(await actions.run(run))

    @app.get("/api/runs/{run}/diff/{other}", response_model=Anything, responses=refusals(404, 424), tags=["recording"])
    async def diff(run: RunName, other: RunName) -> Answer:
        """In which labels, settings, versions and streams two runs differ."""
        return Answer(await actions.differences(run, other))

    @app.post("/api/runs/{run}/labels", responses=refusals(404, 409, 424), **done)
    async def label(run: RunName, body: LabelRequest, request: Request) -> Answer:
        """Say what a run was."""
        return Answer(await actions.label(visitor_of(actions, request), run, body))


def _session(app: FastAPI, actions: Actions, gate: Gate) -> None:
    access = actions.access

    @app.get("/api/session", response_model=Anything, responses=refusals(), tags=["session"])
    async def who(request: Request) -> Answer:
        """What this browser may do: `nobody`, `viewer` or `operator`."""
        return Answer({"role": visitor_of(actions, request).role.name.lower(), "tokens": not access.is_open})

    @app.post("/api/session", response_model=Anything, responses=refusals(), tags=["session"])
    async def enter(body: SessionRequest, request: Request) -> Answer:
        """Show a token; the browser gets a cookie that stands for it."""
        peer = visitor_of(actions, request).peer
        role = access.role_of(body.token, None)
        if role is Role.NOBODY:
            gate.count_wrong_token(peer)
            raise Refusal(401, "WrongToken", "this lab does not know that token")
        answer = Answer({"role": role.name.lower(), "tokens": not access.is_open})
        if not access.is_open:
            answer.set_cookie(
                access.cookie_name, access.cookie_of(role), max_age=SESSION_S, httponly=True, samesite="strict"
            )
        return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"retry-after": "1"} if error.status == 429 else None
    return Answer(error.body(), error.status, headers=headers)


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return Answer({"error": "WrongRequest", "detail": in_words(error.errors())}, 422)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "NoSuchPlace" if error.status_code in (404, 405) else "WrongRequest"
    return Answer({"error": kind, "detail": str(error.detail)}, error.status_code, headers=error.headers)
