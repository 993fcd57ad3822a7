from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, cast

from duodaq.bluesky._axis import AxisDevice, ParameterDevice, field_of
from duodaq.bluesky._fly import StreamFlyer
from duodaq.bluesky._promise import Instrument, Measured, Reader
from duodaq.bluesky._repeat import OnRepeat, nobody, read_patiently
from duodaq.bluesky._status import FutureStatus


class ReaderDevice:
    """An instrument as Bluesky reads it: `trigger` takes one measurement of each of its channels.

    Args:
        reader: The instrument.
        names: The field of each channel.
        on_repeat: Told when a read is done once more.
    """

    parent = None

    def __init__(self, reader: Reader, names: Mapping[str, str], on_repeat: OnRepeat = nobody) -> None:
        self.reader = reader
        self._on_repeat = on_repeat
        self.name = reader.id
        self._names = dict(names)
        self._latest: dict[str, Measured] = {}
        self.hints = {"fields": list(self._names.values())}

    def trigger(self) -> FutureStatus:
        """Begin one measurement of every channel."""
        futures = {channel: self._read_soon(channel) for channel in self._names}
        for channel, future in futures.items():
            future.add_done_callback(lambda f, c=channel: self._take(c, f))
        return FutureStatus(list(futures.values()))

    def read(self) -> dict[str, dict[str, Any]]:
        """What the last trigger measured; measured now, of a channel that was never triggered."""
        self._measure_missing()
        return {
            self._names[channel]: {"value": reading.value, "timestamp": reading.t_ns / 1e9}
            for channel, reading in self._latest.items()
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """Every field, with the unit and shape of the last measurement; taken once if there is none yet."""
        self._measure_missing()
        return {
            self._names[channel]: field_of(reading.value, f"duodaq:{self.name}.{channel}", reading.unit)
            for channel, reading in self._latest.items()
        }

    def _measure_missing(self) -> None:
        for channel in self._names.keys() - self._latest.keys():
            self._latest[channel] = self._read_soon(channel).result(60.0)

    def _read_soon(self, channel: str) -> concurrent.futures.Future[Any]:
        return read_patiently(lambda: self.reader.read_soon(channel), self._names[channel], self._on_repeat)

    def read_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def _take(self, channel: str, future: concurrent.futures.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._latest[channel] = future.result()


class InstrumentDevice(ReaderDevice):
    """An instrument of either runtime as a Bluesky device; its axes are attributes: ``devices(lab).stage.x``.

    Readable, Triggerable, Configurable and Stageable of `bluesky.protocols`. Its configuration is what the lab's
    parameter table knows of it.

    Args:
        instrument: The instrument.
        channels: Which of its channels it reads; all by default.
    """

    def __init__(self, instrument: Instrument, channels: Sequence[str] | None = None) -> None:
        self.instrument = instrument
        known = instrument.channels()
        chosen = known if channels is None else list(channels)
        if strange := [channel for channel in chosen if channel not in known]:
            raise ValueError(f"{instrument.id} has no channel {strange[0]!r}; there are: {', '.join(known) or 'none'}")
        super().__init__(instrument, {c: f"{instrument.id}_{c}".replace(".", "_") for c in chosen})
        self.axes = {name: AxisDevice(axis) for name, axis in instrument.axes.items()}

    def only(self, *channels: str) -> InstrumentDevice:
        """The same instrument, of which only these channels are read."""
        return InstrumentDevice(self.instrument, channels)

    def settable(self, parameter: str, *, unit: str = "", then: str | None = None) -> ParameterDevice:
        """One of its parameters, to be scanned; see ParameterDevice."""
        return ParameterDevice(self.instrument, parameter, unit=unit, then=then)

    def flyer(self, channel: str | None = None, *, count: int | None = None, **options: Any) -> StreamFlyer:
        """One of its streams, for a fly scan; see StreamFlyer."""
        if channel is None:
            known = self.instrument.channels()
            if len(known) != 1:
                raise ValueError(f"name the channel of {self.name} to fly; there are: {', '.join(known) or 'none'}")
            channel = known[0]
        return StreamFlyer(self.instrument, channel, count=count, options=options)

    def read_configuration(self) -> dict[str, Any]:
        """What the parameter table knows of it."""
        return {
            self._field(entry): {"value": _plain(entry["value"]), "timestamp": entry["t_ns"] / 1e9}
            for entry in self._entries()
        }

    def describe_configuration(self) -> dict[str, Any]:
        """Its fields."""
        source = f"duodaq:{self.name}"
        return {
            self._field(entry): field_of(_plain(entry["value"]), f"{source}.{entry['name']}", entry.get("unit") or "")
            for entry in self._entries()
        }

    def configure(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set parameters, in the order in which they are given.

        Returns:
            Its configuration before, and after.

        Raises:
            DuodaqError: One cannot be set. Those before it are.
        """
        before = self.read_configuration()
        for name, value in values.items():
            self.instrument.set(name, value)
        return before, self.read_configuration()

    def stage(self) -> list[Any]:
        """What an earlier plan measured is forgotten."""
        self._latest.clear()
        return [self]

    def unstage(self) -> list[Any]:
        """Nothing has to be undone."""
        return [self]

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self.instrument.parameters() if entry["value"] is not None]

    def _field(self, entry: dict[str, Any]) -> str:
        return f"{self.name}_{entry['name']}".replace(".", "_")

    def __getattr__(self, name: str) -> AxisDevice:
        axis = self.__dict__.get("axes", {}).get(name)
        if axis is None:
            known = ", ".join(self.__dict__.get("axes", {})) or "none"
            raise AttributeError(f"{name!r} is no axis of it (there are: {known})")
        return axis

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.axes]

    def __repr__(self) -> str:
        return f"<device {self.name}: {', '.join(self._names) or 'no channels'}>"


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    return value if hasattr(value, "shape") else str(value)
