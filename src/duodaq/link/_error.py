from __future__ import annotations

import asyncio
import builtins
import inspect
import traceback
from typing import Any, cast

from duodaq import errors
from duodaq.errors import DeliveryError, DuodaqError
from duodaq.telemetry import words

_PLAIN = (bool, int, float, str, bytes, type(None))


def error_to_wire(error: BaseException) -> dict[str, Any]:
    """An exception as plain values: its class and bases by name, its facts, its sentence, and where it was raised."""
    if isinstance(error, asyncio.CancelledError):
        error = DeliveryError("cancelled", fate="unknown")
    wire: dict[str, Any] = {"classes": [one.__name__ for one in type(error).__mro__], "text": words(error)}
    if isinstance(error, DuodaqError):
        wire["facts"] = {name: _plain(value) for name, value in error.facts().items()}
    else:
        wire["trace"] = "".join(traceback.format_exception(error))
    return wire


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[Any]", value)]
    return value if isinstance(value, _PLAIN) else str(value)


def error_from_wire(wire: dict[str, Any]) -> Exception:
    """The exception that was sent, as the nearest class known here, with its facts as fields."""
    for name in wire.get("classes", ()):
        known = getattr(errors, name, None)
        if inspect.isclass(known) and issubclass(known, DuodaqError):
            return _ours(known, wire)
        builtin = getattr(builtins, name, None)
        if inspect.isclass(builtin) and issubclass(builtin, Exception):
            return _theirs(builtin, wire)
    return DuodaqError(str(wire.get("text", "an error without a text")))


def _ours(known: type[DuodaqError], wire: dict[str, Any]) -> Exception:
    facts = dict(cast("dict[str, Any]", wire.get("facts") or {}))
    what = str(facts.pop("what", wire.get("text", "")))
    accepted = {
        parameter.name
        for one in known.__mro__
        if issubclass(one, DuodaqError)
        for parameter in inspect.signature(one.__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    try:
        return known(what, **{name: value for name, value in facts.items() if name in accepted})
    except TypeError:  # a sender of another version left out a fact that is required here
        return DuodaqError(str(wire.get("text", what)))


def _theirs(builtin: type[Exception], wire: dict[str, Any]) -> Exception:
    text = str(wire.get("text", ""))
    name = wire["classes"][0]
    try:
        error = builtin(text if name == builtin.__name__ else f"{name}: {text}")
    except TypeError:  # e.g. UnicodeDecodeError, whose facts did not travel
        error = DuodaqError(f"{name}: {text}")
    if wire.get("trace"):
        error.add_note(f"raised at the other end of the link:\n{wire['trace']}")
    return error
