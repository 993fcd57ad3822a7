"""The routes of instruments on their way from V2 to V4."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath

from duodaq.web._actions import Actions
from duodaq.web._answers import Answer, Anything, refusals, visitor_of
from duodaq.web._requests import MigrateRequest

Instrument = Annotated[str, InPath(max_length=200, description="Its name in the lab file.")]
_MARKDOWN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/markdown": {}}, "description": "The report, in Markdown."}
}


def add_moving(app: FastAPI, actions: Actions) -> None:
    """All of them."""

    @app.get("/api/migration", response_model=list[Anything], responses=refusals(409), tags=["migration"])
    async def status() -> Answer:
        """Where each instrument is on its way from V2 to V4: its checklist, its shadow, and what was done."""
        return Answer(await actions.moving.status())

    @app.get(
        "/api/migration/{instrument}/report",
        responses={**refusals(404, 409), **_MARKDOWN},
        response_class=Response,
        tags=["migration"],
    )
    async def report(instrument: Instrument) -> Response:
        """What its shadow finds, or its last one found, in Markdown."""
        return Response(await actions.moving.report(instrument), media_type="text/markdown")

    done: dict[str, Any] = {"response_model": Anything, "tags": ["migration"], "response_class": Answer}

    @app.post("/api/migration/{instrument}", responses=refusals(404, 409, 424), **done)
    async def migrate(instrument: Instrument, body: MigrateRequest, request: Request) -> Answer:
        """Begin or end its shadow, move it to V4 or back, or answer for a line of its checklist."""
        return Answer(await actions.moving.migrate(visitor_of(actions, request), instrument, body))
