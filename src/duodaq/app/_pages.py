"""What handles show at the end of a notebook's cell, of plain values that the lab knows: no instrument is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from duodaq.app._scan_facts import ScanStatus
from duodaq.errors import DeliveryError, LifecycleError
from duodaq.markup import page, table, words
from duodaq.model import LEFT_OUT, AlarmStatus, is_secret

Plain = Mapping[str, Any]
_FINE = ("ready", "acquiring")
_MOST_VALUES = 60


def shown(what: str, make: Callable[[], str]) -> str:
    """The page of a handle, or why it cannot be asked: its lab is gone or closed, or it is not in it any more."""
    try:
        return make()
    except (DeliveryError, LifecycleError) as error:
        return page(what, wrong=[str(error)])


def told(what: str, say: Callable[[], str]) -> str:
    """What a handle is in a line, or why it cannot be asked."""
    try:
        return f"<{what}: {say()}>"
    except (DeliveryError, LifecycleError) as error:
        return f"<{what}; {error}>"


def lab_page(status: Plain) -> str:
    """A lab: its instruments, and what is under way or wrong."""
    rows = [
        (one["id"], one["runtime"], one["state"], _holder(status, one["id"]), one["port"], _why(one))
        for one in status["instruments"]
    ]
    wrong = ["a stop is latched: nothing moves or emits until it is reset"] if status["latched"] else []
    wrong += [f"{name} is {status[name]}" for name in ("v2", "v4") if status[name] not in ("running", "stopped")]
    wrong += [f"alarm {one['name']} is {one['state']}: {one['why']}" for one in status["alarms"] if one["why"]]
    facts = [f"recording into {status['recording']}"] if status["recording"] else []
    facts += [f"scan {one['number']}: {one['done']} of {one['planned']} points" for one in status["scans"]]
    facts += [f"its page is at {status['page']}"] if status["page"] else []
    head = ("instrument", "runtime", "state", "controlled by", "port", "")
    return page(f"lab {status['lab']}, {status['state']}", facts, table(head, rows), wrong=wrong)


def instrument_page(facts: Plain, status: Plain, channels: Iterable[Plain], parameters: Sequence[Plain]) -> str:
    """An instrument: its state, its channels and axes, and what the lab's parameter table knows of it."""
    good = status["state"] in _FINE
    said = [f"{facts['driver']} in {status['runtime']}, {status['mode']}", *([_state(status)] if good else [])]
    axes = [(one["name"], one["unit"], _range(one["limits"])) for one in facts["axes"]]
    measured = [(one["channel"], one["unit"], one["kind"]) for one in channels]
    values = [
        (one["name"], LEFT_OUT if is_secret(one["name"]) else one["value"], one["unit"], _when(one))
        for one in parameters
    ]
    return page(
        facts["id"],
        said,
        table(("channel", "unit", "kind"), measured),
        table(("axis", "unit", "limits"), axes),
        table(("parameter", "value", "unit", "as of"), values, most=_MOST_VALUES),
        wrong=[] if good else [_state(status)],
    )


def axis_page(address: str, unit: str, limits: Sequence[float] | None, position: Plain | None) -> str:
    """An axis: its limits, and where the lab last knew it to be."""
    facts = [f"limits: {_range(limits)} {unit}" if limits else "no limits in the lab file"]
    if position is not None:
        facts.append(f"position: {words(position['value'])} {position['unit']}, {_when(position)}")
    return page(f"axis {address}, {unit}", facts)


def alarms_page(alarms: Sequence[AlarmStatus]) -> str:
    """Alarms, each with its state."""
    rows = [
        (one.name, one.state, f"{one.instrument}.{one.channel}", one.value, one.unit, one.why, one.by, one.note)
        for one in alarms
    ]
    head = ("alarm", "state", "channel", "value", "unit", "why", "acknowledged by", "note")
    return page("alarms", [] if rows else ["none"], table(head, rows))


def scans_page(title: str, scans: Sequence[ScanStatus]) -> str:
    """Scans, the oldest first."""
    rows = [
        (one.number, " × ".join(one.axes), f"{one.done} of {one.planned}", one.state, one.why, one.who, one.directory)
        for one in scans
    ]
    head = ("scan", "axes", "points", "state", "why", "who", "recording")
    return page(title, [] if rows else ["none"], table(head, rows))


def presets_page(presets: Sequence[Plain]) -> str:
    """Presets, by name."""
    rows = [[one.get(name) for name in ("name", "saved", "by", "note")] for one in presets]
    return page("presets", [] if rows else ["none"], table(("preset", "saved", "by", "note"), rows))


def _holder(status: Plain, instrument: str) -> str:
    holder = status["control"].get(instrument)
    return "" if holder is None else " of ".join(part for part in (holder["what"], holder["name"]) if part)


def _why(instrument: Plain) -> str:
    return instrument["message"] if instrument["state"] not in _FINE else ""


def _state(status: Plain) -> str:
    return f"{status['state']}: {status['message']}" if status["message"] else str(status["state"])


def _range(limits: Sequence[float] | None) -> str:
    return "" if not limits else f"{limits[0]:g} … {limits[1]:g}"


def _when(entry: Plain) -> str:
    moment = datetime.fromtimestamp(entry["t_ns"] / 1e9, UTC).astimezone().isoformat(timespec="seconds")
    return f"stale since {moment}" if entry.get("stale") else moment
