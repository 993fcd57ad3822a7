"""The keys of a lab file: what may stand there and its default from pydantic's models, the words from the docstring
that stands below each field in the source.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le
from markup import code, paragraphs, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from duodaq.config._lab_file import LabFile
from duodaq.config._options import OPTIONS
from duodaq.config._tables import VisaTable

OF_VALIDATORS = {
    "_duration": "duration",
    "_deadlines": "duration, or table of them",
    "_memory": 'memory, `"2 GB"`',
    "_size": 'size, `"10 MB"`',
    "_settings": "list or table",
    "_safe_action": "safe action",
    "_bytes": "bytes, as text",
    "_hold": "seconds, or table of them",
}
BEHIND_VALIDATORS: dict[str, type[BaseModel]] = {"ports.NAME.visa": VisaTable}
"""Tables that a validator reads by itself, so that no annotation names them."""
PLAIN: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "anything"}


def one(words: list[str], like: list[list[str]]) -> str:
    """The keys of one table, such as ``ports.NAME.serial`` or ``options.v2``; some of them, if they are named."""
    path, *chosen = words
    rows = ((code(key), *rest) for key, *rest in _rows(_model(path)) if key in chosen or not chosen)
    return table(("key", "value", "default", "meaning"), rows)


def others(words: list[str], like: list[list[str]]) -> str:
    """Every table of a lab file that has no region of its own."""
    covered = {path for path, *_ in like}
    left = [path for path in _paths("", LabFile) if path not in covered]
    return "\n\n".join(f"## `[{path}]`\n\n{one([path], [])}" for path in left)


def _paths(prefix: str, model: type[BaseModel]) -> list[str]:
    found: list[str] = []
    for key, field in model.model_fields.items():
        inner, many = _table_in(field.annotation)
        if inner is not None:
            path = f"{prefix}{key}.NAME" if many else f"{prefix}{key}"
            has_words = bool(prefix) or any(_table_in(f.annotation)[0] is None for f in inner.model_fields.values())
            found += [path] if has_words else []
            found += _paths(f"{path}.", inner)
    return found


def _model(path: str) -> type[BaseModel]:
    first, *rest = path.split(".")
    if first == "options":
        return OPTIONS["v2" if rest[0] == "v2" else "v4"]
    if path in BEHIND_VALIDATORS:
        return BEHIND_VALIDATORS[path]
    model: type[BaseModel] = LabFile
    for part in path.split("."):
        if not part.isupper():
            inner, _ = _table_in(model.model_fields[part].annotation)
            assert inner is not None, path
            model = inner
    return model


def _table_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The table that an annotation allows, and whether there may be many by name."""
    if get_origin(annotation) is dict:
        return _table_in(get_args(annotation)[1])[0], True
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind, False
    return None, False


def _rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    hints = get_type_hints(model, include_extras=True)
    found: list[tuple[str, str, str, str]] = []
    for name, field in model.model_fields.items():
        words, _, default = _words(model).get(name, "").partition(" Default: ")
        shown = default.rstrip(".") or _default(field, hints[name])
        found.append((name, _value(hints[name]), shown, words.removesuffix(".") if ". " not in words else words))
    return found


@cache
def _words(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field of a model, of its bases too."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        module = sys.modules.get(kind.__module__)
        if module is None or not issubclass(kind, BaseModel) or not module.__name__.startswith("duodaq."):
            continue
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                found |= _below_fields(node)
    return found


def _below_fields(node: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = paragraphs(inspect.cleandoc(below.value.value))
    return found


def _value(hint: Any) -> str:
    """What may be written there, in words."""
    kinds = [kind for kind in (get_args(hint) if _is_union(hint) else (hint,)) if kind is not NoneType]
    if len(kinds) > 1:
        return " or ".join(dict.fromkeys(map(_value, kinds)))
    kind, facts = kinds[0], []
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        facts += more
    named = [OF_VALIDATORS[name] for fact in facts if (name := _validator(fact)) in OF_VALIDATORS]
    if named:
        return named[0]
    if _is_union(kind) or get_origin(kind) is Annotated:
        return _value(kind)
    if get_origin(kind) is Literal:
        return ", ".join(code(f'"{word}"' if isinstance(word, str) else word) for word in get_args(kind) if word != "")
    if get_origin(kind) in (list, tuple, frozenset):
        return "list"
    if get_origin(kind) is dict or _table_in(kind)[0] is not None:
        return "table"
    return PLAIN.get(kind, "table") + _bounds(facts)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _validator(fact: Any) -> str:
    return getattr(getattr(fact, "func", None), "__name__", "")


def _bounds(facts: list[Any]) -> str:
    flat = [one for fact in facts for one in (fact.metadata if isinstance(fact, FieldInfo) else [fact])]
    least = next((f"{fact.ge:,}" for fact in flat if isinstance(fact, Ge)), None)
    most = next((f"{fact.le:,}" for fact in flat if isinstance(fact, Le)), None)
    above = next((fact.gt for fact in flat if isinstance(fact, Gt)), None)
    if least and most:
        return f", {least} to {most}"
    if least:
        return f", {least} or more"
    return f", above {above:g}" if above is not None else ""


def _default(field: FieldInfo, hint: Any) -> str:
    if field.is_required():
        return "required"
    default, kind = field.get_default(call_default_factory=True), _value(hint)
    if isinstance(default, bool):
        return code(str(default).lower())
    if isinstance(default, int | float):
        return code(_amount(default, kind))
    return code(f'"{default}"') if isinstance(default, str) and default else "none"


def _amount(number: float, kind: str) -> str:
    if kind.startswith("duration"):
        return f'"{number * 1000:g} ms"' if 0 < number < 1 else f'"{number:g} s"'
    if kind.startswith("size"):
        return f'"{number / 10**6:g} MB"'
    return f"{number:g}"
