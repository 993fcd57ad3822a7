"""Definitions as they would be written in a lab file, key by key: what a plan shows of a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from duodaq.model import (
    AlarmDefinition,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
    SafeAction,
    VirtualDefinition,
)

Spelled = dict[str, str]
"""Each key that is set, and is not what it is anyway, dotted, and its value as TOML."""
_INSTRUMENT: dict[str, float | None] = {
    "deadline.default": InstrumentDefinition("", "v2", "").deadline_s,
    "kill_after": InstrumentDefinition("", "v2", "").kill_after_s,
}
_PORT: dict[str, float | None] = {
    "timeout": PortDefinition("").timeout_s,
    "hold_max": PortDefinition("").hold_max_s,
    "virtual.stall": VirtualDefinition().stall_s,
}


def toml(value: Any) -> str:
    """A value as it is written in a lab file; one that has no spelling there, in Python's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    if isinstance(value, bytes):
        return _quoted(value.decode("latin-1"))
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return _list(cast("Sequence[Any]", value))
    if isinstance(value, set | frozenset):
        return _list(sorted(cast("set[Any]", value), key=str))
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return f"{{ {', '.join(f'{key} = {toml(one)}' for key, one in table.items())} }}" if table else "{}"
    return getattr(value, "__qualname__", None) or repr(value)


def instrument_keys(one: InstrumentDefinition) -> Spelled:
    """The stanza of an instrument."""
    keys: dict[str, Any] = {
        "runtime": one.runtime,
        "driver": one.driver,
        "port": one.port,
        "worker": one.worker or None,
        "stop": one.stop,
        "passive": one.passive or None,
        "required": one.required or None,
        "autostart": None if one.autostart else False,
        "settings": one.watched or None,
        **_each("args", one.args),
        **_each("settings", one.settings),
        **_each("options", one.options),
        **_each("limits", one.limits),
    }
    for poll in one.polls:
        keys |= _each(f"poll.{poll.channel}", _poll(poll))
    for axis in one.axes:
        keys |= _each(f"axes.{axis.name}", {"number": axis.number, "unit": axis.unit, "limits": axis.limits})
    spelled = {key: toml(value) for key, value in keys.items() if value is not None}
    spelled |= {f"safe.{cause.value}": _safe(action) for cause, action in one.safe.items()}
    spelled |= {f"deadline.{name}": _seconds(limit_s) for name, limit_s in one.method_deadline_s.items()}
    return spelled | _but({"deadline.default": one.deadline_s, "kill_after": one.kill_after_s}, _INSTRUMENT)


def port_keys(one: PortDefinition) -> Spelled:
    """The stanza of a port."""
    keys: dict[str, Any] = {**_each("serial", one.serial or {}), "tcp": one.tcp, "codec": one.codec}
    keys |= {"idle_ms": one.idle_ms, **_each("options", one.options)}
    if one.visa is not None:
        keys |= {"visa.resource": one.visa.resource, "visa.library": one.visa.library or None}
        keys |= _each("visa.attributes", one.visa.attributes)
    limits: dict[str, float | None] = {"timeout": one.timeout_s, "hold_max": one.hold_max_s}
    if one.virtual is not None:
        clients = None if one.virtual.clients == VirtualDefinition().clients else one.virtual.clients
        keys |= {"virtual.pty": one.virtual.pty, "virtual.tcp": one.virtual.tcp, "virtual.clients": clients}
        limits["virtual.stall"] = one.virtual.stall_s
    spelled = {key: toml(value) for key, value in keys.items() if value is not None}
    return spelled | _but(limits, _PORT)


def alarm_keys(one: AlarmDefinition) -> Spelled:
    """The stanza of an alarm."""
    keys: dict[str, Any] = {field.name: getattr(one, field.name) for field in fields(one)}
    for name in ("name", "instrument", "channel"):
        del keys[name]
    for name in ("stale", "delay"):
        limit_s = keys.pop(f"{name}_s")
        keys[name] = _duration(limit_s) if limit_s else None
    keys["hysteresis"] = keys["hysteresis"] or None
    spelled = {key: toml(value) for key, value in keys.items() if value not in (None, "", ()) and value is not False}
    return {"channel": toml(f"{one.instrument}.{one.channel}"), **spelled}


def lab_keys(lab: LabDefinition) -> Spelled:
    """What a running lab can take over of the lab itself."""
    recording = None if lab.recording_dir is None else str(lab.recording_dir)
    keys: dict[str, Any] = {"lab.recording": recording, "lab.record_wire": lab.record_wire or None}
    keys |= {"lab.finalise": lab.finalise or None, "lab.keep_journal": None if lab.keep_journal else False}
    spelled = {key: toml(value) for key, value in keys.items() if value is not None}
    spelled["lab.shutdown"] = _seconds(lab.shutdown_s)
    if lab.mail is not None:
        told = {f"mail.{field.name}": getattr(lab.mail, field.name) for field in fields(lab.mail)}
        spelled |= {key: toml(value) for key, value in told.items() if value is not None}
    return spelled


def laid_down_keys(lab: LabDefinition) -> dict[str, Any]:
    """What is laid down when a lab starts: values to compare, not to be shown, for tokens are among them."""
    keys: dict[str, Any] = {}
    for runtime in (lab.v2, lab.v4):
        keys |= {f"runtimes.{runtime.name}.{key}": value for key, value in _runtime(runtime).items()}
    keys |= {f"web.{field.name}": getattr(lab.web, field.name) for field in fields(lab.web)}
    one = lab.observers
    keys |= {"metrics.port": one.metrics_port, "telemetry.otlp": one.otlp}
    keys |= {"logging": (one.log_file, one.log_bytes, one.log_keep)}
    keys |= {"flight_recorder.folder": one.flight_dir, "flight_recorder.last": one.flight_s}
    return keys | {"flight_recorder.keep": one.flight_keep}


def _runtime(one: RuntimeDefinition) -> dict[str, Any]:
    return {"worker": one.worker, "memory": one.memory_bytes}


def _list(items: Iterable[Any]) -> str:
    return f"[{', '.join(map(toml, items))}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _ESCAPES.get(c, f"\\u{ord(c):04x}") for c in escaped) + '"'


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _each(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{table}.{key}": value for key, value in values.items()}


def _seconds(limit_s: float | None) -> str:
    return toml("never" if limit_s is None else _duration(limit_s))


def _duration(time_s: float) -> str:
    return f"{time_s:g} s" if time_s >= 1 or time_s == 0 else f"{time_s * 1000:g} ms"


def _but(limits: Mapping[str, float | None], defaults: Mapping[str, float | None]) -> Spelled:
    """Durations that are not what they are anyway."""
    return {key: _seconds(limit_s) for key, limit_s in limits.items() if defaults[key] != limit_s}


def _poll(poll: PollDefinition) -> dict[str, Any]:
    table: dict[str, Any] = {"read": poll.read, "call": poll.call, "args": poll.args or None}
    return table | {"unit": poll.unit or None, "every": _duration(poll.every_s)}


def _safe(action: SafeAction) -> str:
    match action.kind:
        case "call":
            return toml({"call": action.call, **({"args": action.args} if action.args else {})})
        case "bytes":
            return toml({"bytes": action.data})
        case _:
            return toml(action.kind)
