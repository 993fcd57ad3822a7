"""Whether a message's fields are of the kinds that it says, before anything of it reaches a device."""

from __future__ import annotations

from functools import cache
from numbers import Real
from types import NoneType
from typing import Any, get_args

import msgspec

from duodaq.errors import OutOfRangeError


def check_fields(message: Any, name: str) -> None:
    """Refuse a text, a list or nothing where the operation `name` takes a number, or a number where it takes a text.

    Raises:
        OutOfRangeError: Which field it is, and what it was given. Nothing was sent.
    """
    for field, (kind, says, may_be_none) in _plain_fields(message.__class__).items():
        value = getattr(message, field)
        is_right = value is None if value is None and may_be_none else isinstance(value, kind)
        if not is_right or (kind is Real and isinstance(value, bool)):
            raise OutOfRangeError(f"{name}: {field} is {says}, and {value!r:.80} is none", left="nothing was sent")


@cache
def _plain_fields(kind: type) -> dict[str, tuple[type, str, bool]]:
    """The fields that are numbers or texts: of which kind, in words, and whether there may be none."""
    if not issubclass(kind, msgspec.Struct):
        return {}
    found: dict[str, tuple[type, str, bool]] = {}
    for field in msgspec.structs.fields(kind):
        kinds: set[Any] = set(get_args(field.type)) or {field.type}
        may_be_none = NoneType in kinds
        kinds.discard(NoneType)
        if kinds and kinds <= {float, int}:
            found[field.name] = (Real, "a number", may_be_none)
        elif kinds == {str}:
            found[field.name] = (str, "a text", may_be_none)
    return found
