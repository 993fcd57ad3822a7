"""What may stand in an instrument's ``options``: how its runtime hosts it. What its driver takes stands in ``args``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from duodaq.config._tables import Table
from duodaq.config._words import kind
from duodaq.model import RuntimeName


def _hold(value: Any) -> Any:
    limits: list[Any] = [*cast("dict[str, Any]", value).values()] if isinstance(value, dict) else [value]
    if any(isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0 for limit in limits):
        raise ValueError(
            f"must be seconds, 0.2, or a table of seconds by method, {{ sweep = 2.0 }}; it is {kind(value)}"
        )
    return cast("Any", value)


class ClassicOptions(Table):
    """Of an instrument in V2."""

    acquire: bool | None = None
    axis_unit: str | None = None
    hold_max_s: Annotated[Any, BeforeValidator(_hold)] = None
    on_reconnect: Literal["passive", "reapply", "withhold", "ask"] | None = None
    requeue: bool | None = None
    snap: str | None = None
    snap_unit: str | None = None
    timeout_s: Annotated[float, Field(gt=0)] | None = None


class ActorOptions(Table):
    """Of an instrument in V4."""

    acquire: bool | None = None
    requeue: bool | None = None
    restart: Literal["permanent", "transient", "never"] | None = None
    restart_limit: Annotated[int, Field(ge=0)] | None = None
    restart_window_s: Annotated[float, Field(gt=0)] | None = None
    start_timeout_s: Annotated[float, Field(gt=0)] | None = None
    stop_timeout_s: Annotated[float, Field(gt=0)] | None = None


OPTIONS: dict[RuntimeName, type[Table]] = {"v2": ClassicOptions, "v4": ActorOptions}

CLASSIC_KEYS = {
    "kill_after": "an actor that does not end is killed at options.stop_timeout_s",
    "passive": "an actor's handlers say themselves what moves",
}
"""Keys that only V2 knows, and what V4 has in their place."""
