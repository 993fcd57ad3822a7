"""What can be done with an instrument, as a page or a program needs to know it: found without asking the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from duodaq.config import Offer, members_of, offers_of
from duodaq.model import Execute, InstrumentDefinition, SetParameter, StartAcquisition, may_move

_OF_AXES = frozenset({"move", "move_absolute", "move_relative", "home", "read_position", "read_axis_state"})
_OF_AN_AXIS = {"move": 2, "move_relative": 2, "home": 1}
"""Motions, and how many arguments a driver of V2 takes for them, the axis among them."""
_OF_STREAMS = frozenset({"start_stream", "stop_stream", "is_streaming", "snap_frame", "get_capabilities"})


def panel_of(definition: InstrumentDefinition) -> dict[str, Any]:
    """The capabilities of one instrument, as plain values.

    Returns:
        ``axes`` (name, unit, limits, and which motions it ``does``), ``settings`` (name, unit, whether it can be set,
        and whether that may move or emit), ``operations`` (name, arguments, words), ``channels`` and ``camera``,
        whether it takes pictures. What a latched stop refuses whatever its arguments are is ``held``; ``starts_held``
        says that of acquiring. What a driver of V2 has is read from its source: its code runs in its own process alone.
    """
    does = _motions_of(definition)
    axes = [{"name": a.name, "unit": a.unit, "limits": a.limits, "does": does} for a in definition.axes]
    channels = [{"name": p.channel, "unit": p.unit} for p in definition.polls]
    parts = _of_actor(definition) if definition.runtime == "v4" else _of_driver(definition)
    return {"axes": axes, "channels": channels, **parts}


def _motions_of(definition: InstrumentDefinition) -> list[str]:
    """Which motions its axes may be asked for: all of them where nobody can tell without running its code."""
    if definition.runtime == "v4":
        from duodaq.v4 import BUILT_IN  # as below

        kind: Any = BUILT_IN.get(definition.driver) if isinstance(definition.driver, str) else definition.driver
        known = None if kind is None else frozenset(kind.operations)
    elif isinstance(definition.driver, str):
        known = members_of(definition.driver, definition.base_dir or Path(), beside=True)
    else:
        known = frozenset(dir(definition.driver))
    return [name for name in _OF_AN_AXIS if known is None or name in known]


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
        if o.kind == "method" and not (definition.axes and _is_of_an_axis(o))
    ]
    camera = "snap" in definition.options
    return {"settings": settings, "operations": operations, "camera": camera, "starts_held": False}


def _is_of_an_axis(offer: Offer) -> bool:
    """Whether it is done from where its axis is shown."""
    return offer.name in _OF_AN_AXIS and len(offer.arguments) >= _OF_AN_AXIS[offer.name]


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
