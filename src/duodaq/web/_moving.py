"""The way of instruments from V2 to V4, as visitors see it and go it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from duodaq.web._refusal import Refusal
from duodaq.web._requests import MigrateRequest, Request
from duodaq.web._visitors import Visitor

Ask = Callable[[str, dict[str, Any], Visitor | None], Awaitable[Any]]


class Moving:
    """Shadows, cutovers and rollbacks.

    Args:
        ask: What asks the lab.
        expect: What refuses an instrument that there is not.
    """

    def __init__(self, ask: Ask, expect: Callable[[str], object]) -> None:
        self._ask = ask
        self._expect = expect
        self.by_name: dict[str, tuple[type[Request], Callable[..., Any]]] = {"migrate": (MigrateRequest, self.migrate)}

    async def status(self) -> Any:
        """Where each instrument is, its list, its shadow, and what was done."""
        return await self._ask("migrate", {"do": "status"}, None)

    async def report(self, instrument: str) -> str:
        """What its shadow finds, or its last one found, in Markdown."""
        self._expect(instrument)
        return str(await self._ask("migrate", {"do": "last_report", "instrument": instrument}, None))

    async def migrate(self, visitor: Visitor, instrument: str, request: MigrateRequest) -> Any:
        """Begin or end a shadow, move an instrument, or answer for a line of its list: in whose name is noted."""
        self._expect(instrument)
        if request.force and request.who is None:
            raise Refusal(422, "WrongRequest", "who forces a cutover says who it is")
        if request.do == "tick" and (request.who is None or request.item is None):
            raise Refusal(422, "WrongRequest", "tick needs who answers, and for which item")
        by = visitor.name if request.who is None else f"{request.who} ({visitor.name})"
        told = request.model_dump(exclude={"who"}) | {"instrument": instrument, "by": by}
        return await self._ask("migrate", told, visitor) or {}
