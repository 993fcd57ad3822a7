"""What the routes share: how answers are written, which refusals there are, and who asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path as InPath
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from duodaq.web._actions import Actions
from duodaq.web._plain import to_json
from duodaq.web._requests import RefusalAnswer
from duodaq.web._visitors import KEY_HEADER, Visitor

_REASONS = {
    400: "It cannot be read.",
    401: "A token is wanted.",
    403: "It may not be done from here, or with this token.",
    404: "There is no such thing.",
    405: "Not this method.",
    408: "The body did not come in time.",
    409: "The state of the lab does not allow it: it is stopped, latched, or busy with the same.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value is wrong, or beyond its limits. Nothing was done.",
    424: "The instrument, its line or the disk did not do it; `fate` says whether it may have been begun.",
    429: "Too many at once.",
}
RunName = Annotated[str, InPath(max_length=200, description="Its directory's name, its number, or `last`.")]


class Answer(JSONResponse):
    """A value as JSON."""

    def render(self, content: Any) -> bytes:
        """Its bytes."""
        return to_json(content)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers that say no, for the schema: those given, and what may come to any request."""
    always = (400, 401, 403, 408, 413, 415, 422, 429)
    return {s: {"model": RefusalAnswer, "description": _REASONS[s]} for s in sorted({*always, *statuses})}


class Anything(BaseModel):
    """An object; its fields are those of the question's description."""

    model_config = {"extra": "allow"}


def visitor_of(actions: Actions, request: Request) -> Visitor:
    """Who asks."""
    return actions.visitors.of(request.state, request.headers.get(KEY_HEADER))
