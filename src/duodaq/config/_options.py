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


OnReconnect = Literal["passive", "reapply", "withhold", "ask"]


class ClassicOptions(Table):
    """Of an instrument in V2."""

    acquire: bool | None = None
    """Whether polling begins at start. Default: `true`."""
    axis_unit: str | None = None
    """Of a polled spectrum."""
    hold_max_s: Annotated[Any, BeforeValidator(_hold)] = None
    """As the port's `hold_max`, in seconds, or a table of seconds by method."""
    on_reconnect: OnReconnect | None = None
    """Which settings a new driver is given. Default: `"passive"`."""
    requeue: bool | None = None
    """Whether waiting commands that may move survive the replacement of their worker. Default: `false`."""
    snap: str | None = None
    """The method that takes a frame."""
    snap_unit: str | None = None
    """The unit of its pixels."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """How long a read of the serial object that the class receives waits before it returns what there is, as
    `serial.Serial(timeout=…)` did: for this instrument alone. Default: the port's `timeout`.
    """


class ActorOptions(Table):
    """Of an instrument in V4."""

    acquire: bool | None = None
    """Whether acquisition begins at start; else it begins with `lab.NAME.start()`. Default: `false`."""
    on_reconnect: OnReconnect | None = None
    """As in V2, where the worker was replaced; a setting that emits is not applied by any of them. Default:
    `"passive"`.
    """
    requeue: bool | None = None
    """Whether waiting commands that may move survive a restart. Default: `false`."""
    restart: Literal["permanent", "transient", "never"] | None = None
    """Whether it is started again after any end, after a failure alone, or not at all. Default: `"transient"`."""
    restart_limit: Annotated[int, Field(ge=0)] | None = None
    """How many restarts within the window; the next failure gives it up. Default: `3`."""
    restart_window_s: Annotated[float, Field(gt=0)] | None = None
    """Its seconds. Default: `60`."""
    start_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """How long its start may take."""
    stop_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """How long its end may take; then it is killed."""


OPTIONS: dict[RuntimeName, type[Table]] = {"v2": ClassicOptions, "v4": ActorOptions}

CLASSIC_KEYS = {
    "kill_after": "an actor that does not end is killed at options.stop_timeout_s",
    "passive": "an actor's handlers say themselves what moves",
}
"""Keys that only V2 knows, and what V4 has in their place."""
