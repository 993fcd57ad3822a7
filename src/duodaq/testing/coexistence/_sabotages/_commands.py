# pyright: reportAttributeAccessIssue=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false
# A sabotage reaches where it hurts, and what it puts there is of no declared type.
"""Where all commands to instruments pass on their way from the manager, wherever those live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from duodaq.workers import Hosted, ProcessHosted

Given = Callable[..., Awaitable[Any]]


def around_commands(instead: Callable[[Any, Given], Awaitable[Any]]) -> None:
    """Have `instead(host, command)` carry out every command; `command()` does it, with another deadline if given."""
    for host in (Hosted, ProcessHosted):
        host.command = _around(host.command, instead)


def _around(original: Any, instead: Callable[[Any, Given], Awaitable[Any]]) -> Any:
    async def command(self: Any, instrument: str, asked: Any, deadline_s: float | None = None) -> Any:
        def given(stretched: float = 1.0) -> Awaitable[Any]:
            return original(self, instrument, asked, None if deadline_s is None else stretched * deadline_s)

        return await instead(self, given)

    return command
