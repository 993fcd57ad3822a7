from __future__ import annotations

import datetime
import difflib
import enum
import numbers
import re
from typing import Any, cast

import msgspec
import numpy as np

from duodaq.errors import RefusedError
from duodaq.model import DriverMember
from duodaq.units import SYMBOLS
from duodaq.v2._reading import split_unit


class Member(msgspec.Struct, frozen=True):
    """One thing of a driver that can be read, set or called, under its dotted name (``x.position``).

    `limits` are the lowest and the highest value, None where there is none; `choices` all values, if they are listed.
    """

    name: str
    readable: bool = False
    settable: bool = False
    callable: bool = False
    unit: str = ""
    doc: str = ""
    limits: tuple[float | None, float | None] | None = None
    choices: tuple[Any, ...] = ()


def read_member(driver: Any, name: str) -> Any:
    """The value of the dotted attribute `name` of `driver`; reading it may touch the hardware.

    Raises:
        RefusedError: The driver has no such thing, or the name is private. Nothing was sent.
    """
    owner, last = _owner(driver, name)
    return getattr(owner, last)


def value_or_member(value: Any) -> Any:
    """`value` itself if it is data; else what it is, as a DriverMember: live parts of a driver stay in its thread."""
    if _is_data(value):
        return value
    return DriverMember("method" if callable(value) else "object")


def plain_values(driver: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of those of `names` that lie in `driver` as data: no code of it is run, and no hardware touched."""
    held: dict[str, Any] = getattr(driver, "__dict__", {})
    kind: Any = cast("Any", type(driver))
    return {
        name: held[name]
        for name in names
        if name in held and not hasattr(getattr(kind, name, None), "__set__") and _is_data(held[name])
    }


def set_member(driver: Any, name: str, value: Any) -> None:
    """Set the dotted attribute `name`, which must exist: a typing error never makes a new attribute.

    Raises:
        RefusedError: The driver has no such thing, it cannot be set, or the name is private. Nothing was sent.
    """
    owner, last = _owner(driver, name)
    found = getattr(_class_of(owner), last, None)
    if isinstance(found, property) and found.fset is None:
        raise RefusedError(f"{name} of {type(driver).__name__} can be read, but not set", command=name)
    setattr(owner, last, value)


def find_method(driver: Any, name: str) -> Any:
    """The method under the dotted name `name`.

    Raises:
        RefusedError: There is none, or it is no method. Nothing was called.
    """
    owner, last = _owner(driver, name)
    method = getattr(owner, last)
    if not callable(method):
        raise RefusedError(f"{name} of {type(driver).__name__} is a value, not a method", command=name)
    return method


def has_member(driver: Any, name: str) -> bool:
    """Whether `driver` has the dotted attribute `name`; no property is evaluated on the way to the last part."""
    try:
        _owner(driver, name)
    except RefusedError:
        return False
    return True


def members_of(driver: Any, depth: int = 2) -> tuple[Member, ...]:
    """What of `driver` can be read, set and called, its channels and axes included; touches no hardware."""
    return tuple(sorted(_members(driver, "", depth), key=lambda member: member.name))


def unit_of_doc(doc: str) -> str:
    """The unit that a docstring names as in "… in Volts": the first one, as a symbol; empty if it names none."""
    for match in re.finditer(r"\bin (?:units of )?(\w+)", doc):
        symbol = SYMBOLS.get(match[1].lower()) or (match[1] if match[1] in SYMBOLS.values() else "")
        if symbol:
            return symbol
    return ""


_DATA = (
    type(None), str, bytes, bytearray, numbers.Number, np.generic, enum.Enum,
    datetime.date, datetime.time, datetime.timedelta,
)  # fmt: skip


def _is_data(value: Any) -> bool:
    if isinstance(value, _DATA):
        return True
    if isinstance(value, np.ndarray):
        return not cast("np.ndarray[Any, Any]", value).dtype.hasobject
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        return all(map(_is_data, table)) and all(map(_is_data, table.values()))
    if isinstance(value, list | tuple | set | frozenset | range):
        return all(map(_is_data, cast("list[Any]", value)))
    return split_unit(value)[0] is not value


def _owner(driver: Any, name: str) -> tuple[Any, str]:
    parts = name.split(".")
    owner = driver
    for depth, part in enumerate(parts):
        if not part.isidentifier() or part.startswith("_"):
            raise RefusedError(f"{name!r} is not the name of a public attribute", command=name)
        _require(driver, owner, part, name)
        if depth < len(parts) - 1:
            owner = getattr(owner, part)
    return owner, parts[-1]


def _require(driver: Any, owner: Any, part: str, name: str) -> None:
    if _is_plainly_there(owner, part):
        return
    known = dir(owner)
    if part in known or hasattr(_class_of(owner), "__getattr__"):
        return
    close = difflib.get_close_matches(part, [k for k in known if not k.startswith("_")], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise RefusedError(f"{type(driver).__name__} has no {name!r}{hint}", command=name)


def _is_plainly_there(owner: Any, part: str) -> bool:
    """Whether `dir` would name it, for the most frequent reason: making the whole list takes longer than many calls."""
    kind = cast("type[Any]", type(owner))
    if kind.__dir__ is not object.__dir__ or _class_of(owner) is not kind:
        return False
    return any(part in vars(base) for base in kind.__mro__) or part in getattr(owner, "__dict__", ())


def _members(owner: Any, prefix: str, depth: int) -> list[Member]:
    kind = _class_of(owner)
    found = [_member(getattr(kind, name, None), prefix + name) for name in dir(kind) if not name.startswith("_")]
    held: dict[str, Any] = getattr(owner, "__dict__", {})
    for name, value in held.items():
        if name.startswith("_"):
            continue
        if isinstance(value, bool | int | float | str):
            found.append(Member(prefix + name, readable=True, settable=True))
        elif depth > 1 and _is_part(owner, value):
            found.extend(_members(value, f"{prefix}{name}.", depth - 1))
    return found


def _member(attribute: Any, name: str) -> Member:
    doc = (getattr(attribute, "__doc__", None) or "").strip().split("\n\n")[0]
    line = " ".join(doc.split())
    if isinstance(attribute, property):
        return Member(
            name,
            readable=attribute.fget is not None,
            settable=attribute.fset is not None,
            unit=unit_of_doc(line),
            doc=line,
        )
    if callable(attribute):
        return Member(name, callable=True, doc=line)
    return Member(name, readable=True, doc="")


def _class_of(driver: Any) -> Any:
    return driver.__class__


def _is_part(owner: Any, value: Any) -> bool:
    """Whether `value` is a channel or an axis of `owner`: made where its class was made, or of the same family."""
    module = type(value).__module__
    families = {kind.__module__.split(".")[0] for kind in type(owner).__mro__} - {"builtins", "abc", "object"}
    return module.split(".")[0] in families and "adapter" not in module
