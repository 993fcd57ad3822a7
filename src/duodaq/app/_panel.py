"""What can be done with an instrument, as a page or a program needs to know it: found without asking the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from duodaq.config import offers_of
from duodaq.model import Execute, InstrumentDefinition, SetParameter, StartAcquisition, may_move

_OF_AXES = frozenset({"move", "move_absolute", "move_relative", "home", "read_position", "read_axis_state"})
_OF_STREAMS = frozenset({"start_stream", "stop_stream", "is_streaming", "snap_frame", "get_capabilities"})


def panel_of(definition: InstrumentDefinition) -> dict[str, Any]:
    """The capabilities of one instrument, as plain values.

    Returns:
        ``axes`` (name, unit, limits), ``settings`` (name, unit, whether it can be set, and whether that may move or
        emit), ``operations`` (name, arguments, words), ``channels`` and ``camera``, whether it takes pictures. What a
        latched stop refuses whatever its arguments are is ``held``; ``starts_held`` says that of acquiring. What a
        driver of V2 has is read from its source: its code runs in its own process alone.
    """
    axes = [{"name": a.name, "unit": a.unit, "limits": a.limits} for a in definition.axes]
    channels = [{"name": p.channel, "unit": p.unit} for p in definition.polls]
    parts = _of_actor(definition) if definition.runtime == "v4" else _of_driver(definition)
    return {"axes": axes, "channels": channels, **parts}


def _of_actor(definition: InstrumentDefinition) -> dict[str, Any]:
    from duodaq.v4 import BUILT_IN  # who attaches to a lab elsewhere loads no runtime

    kind: Any = BUILT_IN.get(definition.driver) if isinstance(definition.driver, str) else definition.driver
    if kind is not None:
        settings = [
            {"name": name, "unit": p.unit, "settable": p.write is not None, "emits": p.emits, "held": p.emits}
            for name, p in kind.parameters.items()
        ]
        settings += [
            {"name": f"{axis.name}.velocity", "unit": f"{axis.unit}/s", "settable": True, "emits": False, "held": False}
            for axis in definition.axes
        ]
        safe = {action.call for action in definition.safe.values()}
        operations = [
            {
                "name": name,
                "arguments": _fields(message),
                "words": _first_line(message),
                "held": name not in safe and _always_moves(kind, message),
            }
            for name, message in kind.operations.items()
            if name not in _OF_AXES | _OF_STREAMS
        ]
        starts = _always_moves(kind, StartAcquisition)
        camera = "snap_frame" in kind.operations
        return {"settings": settings, "operations": operations, "camera": camera, "starts_held": starts}
    return {"settings": _named(definition), "operations": [], "camera": False, "starts_held": False}


def _always_moves(kind: Any, message: type) -> bool:
    """Whether an actor's handler says of every such message that it moves or emits."""
    spec = getattr(kind, "handlers", {}).get(message)
    return spec is not None and spec.moves is True


def _of_driver(definition: InstrumentDefinition) -> dict[str, Any]:
    offers = offers_of(definition.driver, definition.base_dir or Path()) if isinstance(definition.driver, str) else ()
    known = {offer.name for offer in offers}
    settings = [setting for setting in _named(definition) if setting["name"] not in known]
    settings += [
        {
            "name": o.name,
            "unit": "",
            "settable": o.kind == "setting",
            "emits": False,
            "words": o.words,
            "held": may_move(definition, SetParameter(o.name, None)),
        }
        for o in offers
        if o.kind != "method"
    ]
    operations = [
        {
            "name": o.name,
            "arguments": [
                {"name": n, "type": kind, "required": must, **_default(dict(o.defaults).get(n))}
                for n, kind, must in o.arguments
            ],
            "words": o.words,
            "held": may_move(definition, Execute(o.name)),
        }
        for o in offers
        if o.kind == "method"
    ]
    camera = "snap" in definition.options
    return {"settings": settings, "operations": operations, "camera": camera, "starts_held": False}


def _named(definition: InstrumentDefinition) -> list[dict[str, Any]]:
    names = dict.fromkeys((*definition.settings, *definition.watched))
    v2 = definition.runtime == "v2"
    return [
        {
            "name": name,
            "unit": "",
            "settable": True,
            "emits": False,
            "held": v2 and may_move(definition, SetParameter(name, None)),
        }
        for name in names
    ]


def _fields(message: type) -> list[dict[str, Any]]:
    return [
        {
            "name": f.name,
            "type": getattr(f.type, "__name__", str(f.type)),
            "required": f.required,
            **_default(f.default),
        }
        for f in msgspec.structs.fields(message)
    ]


def _default(value: Any) -> dict[str, Any]:
    """A default that a person can be shown, if it is one."""
    return {"default": value} if isinstance(value, bool | int | float | str) else {}


def _first_line(message: type) -> str:
    return (message.__doc__ or "").partition("\n")[0]
