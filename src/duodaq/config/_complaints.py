"""pydantic's findings, said so that somebody who never heard of pydantic can act on them."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from duodaq.config._lab_file import LabFile
from duodaq.config._positions import KeyPath
from duodaq.config._tables import WrongTableError
from duodaq.config._words import and_list, choose, kind

Said = tuple[KeyPath, str, str | None]
"""Where, what is wrong, and what would be right."""

_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "list_type": "a list",
}
_EXAMPLES = {
    "driver": 'Write for example driver = "package.module:Class" or "./file.py:Class"',
    "runtime": 'Write runtime = "v2" for a blocking driver class, "v4" for an actor',
    "resource": 'Write for example resource = "GPIB0::9::INSTR", the name of a VISA resource',
    "channel": 'Write for example channel = "dmm.voltage"',
    "server": 'Write for example server = "smtp.example.org:587"',
    "sender": 'Write for example sender = "lab@example.org"',
    "port": "Write for example port = 9464",
    "file": 'Write for example file = "log/lab.jsonl"',
    "otlp": 'Write for example otlp = "http://localhost:4318"',
    "number": "Write the axis number that the controller uses, number = 1",
}


def complaints(error: ValidationError, table: type[BaseModel] = LabFile, at: KeyPath = ()) -> list[Said]:
    """Each finding of `error` about a `table` that stands at `at`: where, what is wrong, and what would be right."""
    found: list[Said] = []
    for details in error.errors(include_url=False):
        reason = details.get("ctx", {}).get("error")
        if isinstance(reason, WrongTableError):
            found += complaints(reason.findings, reason.table, details["loc"])
        else:
            found.append(_said(details, table))
    return [((*at, *path), what, remedy) for path, what, remedy in found]


def _said(details: ErrorDetails, table: type[BaseModel]) -> Said:
    path, found = details["loc"], details["input"]
    if details["type"] == "extra_forbidden":
        return path, "unknown key", choose(str(path[-1]), known_keys(path[:-1], table), "The keys here")
    if details["type"] in _KINDS:
        return path, f"must be {_KINDS[details['type']]}, not {kind(found)}", None
    return _SENTENCES.get(details["type"], _other)(path, found, details)


def _missing(path: KeyPath, found: Any, details: ErrorDetails) -> Said:
    return path, "is required, and missing", _EXAMPLES.get(str(path[-1]))


def _not_one_of(path: KeyPath, found: Any, details: ErrorDetails) -> Said:
    allowed = [str(word) for word in details.get("ctx", {})["expected"].replace(" or ", ", ").split(", ")]
    shown = [word.replace("'", '"') for word in allowed if word != "''"]
    return path, f"must be {and_list(shown, 'or')}, not {kind(found)}", None


def _own(path: KeyPath, found: Any, details: ErrorDetails) -> Said:
    return path, str(details.get("ctx", {})["error"]), None


def _bound(path: KeyPath, found: Any, details: ErrorDetails) -> Said:
    return path, details["msg"].replace("Input should", "must").replace("Value should", "must"), None


def _other(path: KeyPath, found: Any, details: ErrorDetails) -> Said:
    return path, f"{details['msg']}; it is {kind(found)}", None


_SENTENCES: dict[str, Callable[[KeyPath, Any, ErrorDetails], Said]] = {
    "missing": _missing,
    "literal_error": _not_one_of,
    "value_error": _own,
    "finite_number": _bound,
    "greater_than": _bound,
    "greater_than_equal": _bound,
    "less_than_equal": _bound,
}


def known_keys(path: KeyPath, within: type[BaseModel] = LabFile) -> tuple[str, ...]:
    """The keys that may stand in the table at `path` within another."""
    table: Any = within
    for part in path:
        table = _inside(table, str(part))
    return tuple(table.model_fields) if _is_table(table) else ()


def _inside(table: Any, key: str) -> Any:
    if _is_table(table) and key in table.model_fields:
        return _without_none(table.model_fields[key].annotation)
    return get_args(table)[1] if get_origin(table) is dict else None


def _without_none(annotation: Any) -> Any:
    if not isinstance(annotation, types.UnionType):
        return annotation
    return next(arg for arg in get_args(annotation) if arg is not types.NoneType)


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
