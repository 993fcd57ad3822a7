"""What may go wrong with data and state between the runtimes without anybody noticing by itself."""

# A sabotage reaches into the parts whose work it spoils, and stands in for methods whose types do not matter to it.
# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from duodaq.bridge import ParameterTable, _bridge
from duodaq.clock import utc_ns
from duodaq.dataplane import Hub
from duodaq.testing.coexistence._sabotage import sabotage
from duodaq.v2._settings import WatchedSettings
from duodaq.v4.instruments import InstrumentActor
from duodaq.workers._mirror import ParameterMirror

_TO_V4 = "test_data_flow_v2_to_v4"
_TO_V2 = "test_data_flow_v4_to_v2"
_STATE = "test_state_synchronization"


def _before_v4(change: Callable[[Any], Any]) -> None:
    """Change every measurement on its way from V2 to V4."""
    original = _bridge.measurement_batch

    def measurement_batch(rows: Sequence[Any], origin: str | None = None) -> Any:
        return original([change(row) for row in rows], origin)

    _bridge.measurement_batch = measurement_batch


def _before_v2(change: Callable[[Any], Any]) -> None:
    """Change every measurement on its way from V4 to V2."""
    original = _bridge.measurements_of
    _bridge.measurements_of = lambda batch: [change(one) for one in original(batch)]


def _replace(**changes: Any) -> Callable[[Any], Any]:
    return lambda one: type(one)(**{**{name: getattr(one, name) for name in one.__struct_fields__}, **changes})


# ── V2 to V4 ────────────────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_TO_V4, "arrives")
def every_tenth_reading_stays_in_v2() -> None:
    """The bridge takes nine of ten."""
    wanted = _bridge._not_of_v4
    _bridge._not_of_v4 = lambda measurement: wanted(measurement) and measurement.sequence % 10 != 9


@sabotage(_TO_V4, "value")
def readings_lose_their_last_digits() -> None:
    """The bridge carries single precision."""
    _before_v4(lambda one: msgspec.structs.replace(one, value=float(np.float32(one.value))))


@sabotage(_TO_V4, "unit")
def units_get_lost_on_the_bridge() -> None:
    """A bare number arrives."""
    _before_v4(_replace(unit=""))


@sabotage(_TO_V4, "channel")
def channels_are_renamed_on_the_bridge() -> None:
    """The channel is called after its method; the stream is still the right one."""
    original = _bridge._group_to_batch

    def group_to_batch(group: Sequence[Any]) -> Any:
        made = original(group)
        for one in made:
            batch = getattr(one, "item", None)
            if batch is not None:
                names = batch.schema.names
                column = batch.column("unit").dictionary_encode()
                columns = [column if name == "channel" else batch.column(name) for name in names]
                object.__setattr__(one, "item", type(batch).from_arrays(columns, schema=batch.schema))
        return made

    _bridge._group_to_batch = group_to_batch


@sabotage(_TO_V4, "time")
def readings_get_the_time_of_the_bridge() -> None:
    """The time of a reading is that at which it was carried over."""
    _before_v4(lambda one: msgspec.structs.replace(one, t_ns=utc_ns()))


@sabotage(_TO_V4, "sequence")
def readings_are_numbered_by_batch() -> None:
    """The number is the place in the batch."""
    original = _bridge.measurement_batch

    def measurement_batch(rows: Sequence[Any], origin: str | None = None) -> Any:
        return original([msgspec.structs.replace(row, sequence=i) for i, row in enumerate(rows)], origin)

    _bridge.measurement_batch = measurement_batch


# ── V4 to V2 ────────────────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_TO_V2, "frames arrive")
def frames_do_not_cross() -> None:
    """The bridge takes frames for something that V2 has no form for."""
    wanted = _bridge._for_v2
    _bridge._for_v2 = lambda batch: wanted(batch) and "pixels" not in batch.schema.names


@sabotage(_TO_V2, "no copy")
def frames_are_copied_on_the_bridge() -> None:
    """The pixels are equal, and somewhere else."""
    _before_v2(lambda one: _replace(pixels=one.pixels.copy())(one) if hasattr(one, "pixels") else one)


@sabotage(_TO_V2, "no echo")
def what_came_from_v4_goes_back_there() -> None:
    """The bridge no longer looks at the origin of what V2 distributes."""
    _bridge._not_of_v4 = lambda measurement: True


@sabotage(_TO_V2, "pixels")
def frames_are_cut_to_eight_bits() -> None:
    """The pixels are scaled down on their way."""
    _before_v2(lambda one: _replace(pixels=(one.pixels >> 4).astype(np.uint8))(one) if hasattr(one, "pixels") else one)


@sabotage(_TO_V2, "time")
def positions_get_the_time_of_the_bridge() -> None:
    """The time of a position is that at which it was carried over."""
    _before_v2(lambda one: _replace(t_ns=utc_ns())(one))


@sabotage(_TO_V2, "value")
def positions_are_rounded() -> None:
    """V2 gets whole tenths of a millimetre."""
    _before_v2(lambda one: _replace(value=round(one.value, 1) + 0.04)(one) if hasattr(one, "value") else one)


# ── the parameter table ─────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_STATE, "visible in v4")
def v2_settings_show_late() -> None:
    """V2's changes are entered a fifth of a second later."""
    original = WatchedSettings.note

    def note(self: WatchedSettings, command: Any, value: Any) -> None:
        asyncio.get_running_loop().call_later(0.2, original, self, command, value)

    WatchedSettings.note = note


@sabotage(_STATE, "visible in v2")
def v4_settings_show_late() -> None:
    """V4's changes are entered a fifth of a second later."""
    original = InstrumentActor.note

    def note(self: InstrumentActor, name: str, value: Any, unit: str = "") -> None:
        asyncio.get_running_loop().call_later(0.2, original, self, name, value, unit)

    InstrumentActor.note = note


@sabotage(_STATE, "conflict")
def anybody_writes_any_entry() -> None:
    """The last to write owns an entry."""
    original = ParameterTable.put

    def put(self: ParameterTable, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> Any:
        old = self.get(instrument, name)
        if old is not None:
            self.release(old.owner, instrument)
        return original(self, owner, instrument, name, value, unit)

    ParameterTable.put = put
    mirror: Any = ParameterMirror
    mirrored = mirror.put

    def put_there(self: Any, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> Any:
        self._entries.pop((instrument, name), None)
        return mirrored(self, owner, instrument, name, value, unit)

    mirror.put = put_there


@sabotage(_STATE, "late join")
def late_joiners_get_only_what_changes() -> None:
    """A watcher gets nothing of what was there before it came."""
    hub: Any = Hub
    original = hub.subscribe

    def subscribe(self: Hub[Any], name: str, **options: Any) -> Any:
        return original(self, name, **{**options, "initial": ()})

    hub.subscribe = subscribe
    mirror: Any = ParameterMirror
    begin = mirror.__init__
    mirror.__init__ = lambda self, send, entries: begin(self, send, ())


@sabotage(_STATE, "stale")
def entries_never_go_stale() -> None:
    """What is gone looks as it did when it was there."""
    ParameterTable.mark_stale = lambda self, owner, instrument: None


@sabotage(_STATE, "the device agrees")
def the_table_has_what_was_asked_for() -> None:
    """V2 notes a setting and does not wait for the device: it is sent on some time later."""
    from duodaq.v2._host import DriverHost

    def set_and_read(self: DriverHost, command: Any, guard: Any = None) -> Any:
        later = threading.Timer(0.5, lambda: self.set(command.name, command.value, guard))
        later.daemon = True
        later.start()
        return command.value

    DriverHost.set_and_read = set_and_read
