"""What may be asked, field by field: bounded, and nothing that is not named here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[str, Field(max_length=2000)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Values = Annotated[list[Any], Field(max_length=64)]
Named = Annotated[dict[Name, Any], Field(max_length=64)]

CommandKind = Literal["set", "get", "execute", "start", "finish", "snap", "recover"]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Nothing(Request):
    """A request that says no more than where it goes."""


class CommandRequest(Request):
    """One command to an instrument.

    `set` needs `name` and `value`, `get` a `name`; `execute` a `name`, with `args` or `kwargs`; `start` and `snap` take
    `options`; `finish` ends what `start` began; `recover` reconnects.
    """

    kind: CommandKind
    name: Name | None = None
    value: Any = None
    args: Values = []
    kwargs: Named = {}
    options: Named = {}
    deadline_s: Seconds | None = Field(None, description="How long it may take; its instrument's own limit if null.")
    wait: bool = Field(True, description="False: answer at once with the number of the operation.")


class ReadRequest(Request):
    """One measurement, taken now."""

    channel: Name
    deadline_s: Seconds | None = None


class StopRequest(Request):
    """Which axis; the whole instrument if null."""

    axis: Name | None = None


class ControlRequest(Request):
    """Who wants control of an instrument, and whether to take it from whoever has it."""

    who: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    take_over: bool = False


class ResetRequest(Request):
    """Who lifts the latch of a stop-all, for the log; and of which, so that none that came since is lifted with it."""

    who: Annotated[str, Field(min_length=1, max_length=100)]
    stop: Annotated[int, Field(ge=0, le=2**53)] | None = None


class AcknowledgeRequest(Request):
    """Who knows of the alarm; where it came from says so if null."""

    who: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class RecordRequest(Request):
    """What to begin: whether the wire goes with it; as the lab file says if null."""

    wire: bool | None = None


class LabelRequest(Request):
    """What a run was; null leaves what is said of it."""

    sample: Words | None = None
    operator: Words | None = None
    note: Words | None = None
    tags: Annotated[list[Name], Field(max_length=64)] | None = None


Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Numbers = Annotated[list[Number], Field(min_length=1, max_length=100_000)]


class ScanAxis(Request):
    """An axis of a scan: its `positions`, or so many `points` evenly from `start` to `stop`, in its unit."""

    axis: Name = Field(description="Such as `stage.x`.")
    positions: Numbers | None = None
    start: Number | None = None
    stop: Number | None = None
    points: Annotated[int, Field(ge=1, le=100_000)] | None = None


class ScanRequest(Request):
    """A scan by the lab: of one axis, or over the grid of several, the slowest first."""

    axes: Annotated[list[ScanAxis], Field(min_length=1, max_length=4)]
    read: Annotated[list[Name], Field(min_length=1, max_length=64)]
    settle_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    snake: bool = True
    sample: Words | None = None
    operator: Words | None = None
    note: Words | None = None
    tags: Annotated[list[Name], Field(max_length=64)] | None = None


class PresetSaveRequest(Request):
    """What is set now, under a name: of these instruments, or of all."""

    name: Name
    instruments: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None
    note: Words = ""
    replace: bool = False


class PresetLoadRequest(Request):
    """Which instruments of a preset; all if null."""

    instruments: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None


class ExportRequest(Request):
    """In which forms; each is written into the run's own directory."""

    to: Annotated[list[Literal["parquet", "hdf5", "zarr", "csv"]], Field(min_length=1, max_length=4)]


class MigrateRequest(Request):
    """What to do with an instrument on its way from V2 to V4: begin or end its shadow, move it, or answer for an item.

    `force` moves it although its list is not met; `write` has the lab file say where it lives.
    """

    do: Literal["shadow", "end_shadow", "cutover", "rollback", "tick"]
    who: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(None, description="Who says so.")
    force: bool = False
    write: bool = False
    item: Name | None = Field(None, description="With `tick`: which line of the list.")
    why: Words = ""


class RecoverRequest(Request):
    """Whether runs that ended are checked, too."""

    all: bool = False


class LogRequest(Request):
    """A log for weeks; see `duodaq record`."""

    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = "log"
    channels: Annotated[list[Name], Field(max_length=256)] = []
    rotate: Annotated[str, Field(max_length=20)] | None = "daily"
    keep: Annotated[str, Field(max_length=20)] | None = None
    budget: Annotated[str, Field(max_length=20)] | None = None
    finalise: Annotated[list[Literal["parquet", "hdf5"]], Field(max_length=2)] = ["parquet"]


class SessionRequest(Request):
    """A token, for a browser to keep a cookie instead."""

    token: Annotated[str, Field(min_length=1, max_length=500)]


class RefusalAnswer(BaseModel):
    """Every refusal: who refused, why, and of a command what became of it."""

    error: str = Field(description="The kind of error, such as OutOfRangeError.")
    detail: str = Field(description="Why, in a sentence.")
    holder: str | None = Field(None, description="Who holds control of the instrument, if that is why.")
    done: list[str] | None = Field(None, description="Of several settings, those that were set.")
    failed: str | None = Field(None, description="The one that was refused.")
    not_done: list[str] | None = Field(None, description="Those that were not tried.")
    fate: str | None = Field(None, description="`not done` or `unknown`, of a command that was not answered.")
