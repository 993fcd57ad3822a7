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
    """Who lifts the latch of a stop-all, for the log."""

    who: Annotated[str, Field(min_length=1, max_length=100)]


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


class SessionRequest(Request):
    """A token, for a browser to keep a cookie instead."""

    token: Annotated[str, Field(min_length=1, max_length=500)]


class RefusalAnswer(BaseModel):
    """Every refusal: who refused, why, and of a command what became of it."""

    error: str = Field(description="The kind of error, such as OutOfRangeError.")
    detail: str = Field(description="Why, in a sentence.")
    holder: str | None = Field(None, description="Who holds control of the instrument, if that is why.")
    fate: str | None = Field(None, description="`not done` or `unknown`, of a command that was not answered.")
