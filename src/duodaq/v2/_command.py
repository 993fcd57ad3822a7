from __future__ import annotations

from typing import Any

import msgspec

from duodaq.model import Command, InstrumentDefinition


class SpawnInstrument(msgspec.Struct, frozen=True, tag="spawn"):
    """Start the thread and task of an instrument that was added; answered when its driver is connected."""

    id: str


class StopInstrument(msgspec.Struct, frozen=True, tag="stop_instrument"):
    """Close the driver and end its thread; the result is a ComponentReport. It stays known."""

    id: str
    timeout_s: float = 5.0


class RestartInstrument(msgspec.Struct, frozen=True, tag="restart"):
    """Close and start one instrument again; answered when its driver is connected."""

    id: str
    timeout_s: float = 5.0


class SendInstrumentCommand(msgspec.Struct, frozen=True, tag="send"):
    """One command to one instrument. `deadline_s` is the caller's own; None means the method's."""

    id: str
    command: Command
    deadline_s: float | None = None


class AddInstrument(msgspec.Struct, frozen=True, tag="add"):
    """Make an instrument known."""

    definition: InstrumentDefinition


class RemoveInstrument(msgspec.Struct, frozen=True, tag="remove"):
    """Stop an instrument and forget it; the result is a ComponentReport."""

    id: str
    timeout_s: float = 5.0


class GetInstrumentList(msgspec.Struct, frozen=True, tag="list"):
    """The status of every instrument."""


class GetAvailableChannels(msgspec.Struct, frozen=True, tag="channels"):
    """Every channel that can be subscribed to."""


class GetMetrics(msgspec.Struct, frozen=True, tag="metrics"):
    """Figures of the manager, its instruments and the distributor's subscribers."""


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """A Subscription to all measurements, under a name that is unique."""

    name: str
    capacity: int = 1024


class StartRecording(msgspec.Struct, frozen=True, tag="start_recording"):
    """Start the recorder that the application plugged in; answered when it records."""

    options: dict[str, Any] = {}


class StopRecording(msgspec.Struct, frozen=True, tag="stop_recording"):
    """Stop the recorder; answered, with its summary, when its files are complete."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown_v2"):
    """Stop everything within `timeout_s`; the result is one ComponentReport for each instrument."""

    timeout_s: float = 10.0


V2Command = (
    SpawnInstrument
    | StopInstrument
    | RestartInstrument
    | SendInstrumentCommand
    | AddInstrument
    | RemoveInstrument
    | GetInstrumentList
    | GetAvailableChannels
    | GetMetrics
    | Subscribe
    | StartRecording
    | StopRecording
    | Shutdown
)
