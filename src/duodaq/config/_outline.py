"""What a driver's class offers, read from its source without executing a line of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from duodaq.config._ancestry import imported_from
from duodaq.config._driver_lookup import DriverMissingError, find_module

_DEEPEST = 8
_SETTABLE = frozenset({"control", "setting"})
_READABLE = frozenset({"measurement"})


class Offer(NamedTuple):
    """Something that a driver's class has: a method with its arguments, or a property that is read or set."""

    name: str
    kind: Literal["method", "setting", "reading"]
    arguments: tuple[tuple[str, str, bool], ...] = ()
    """Of each its name, its annotation, and whether it must be given."""
    words: str = ""


def offers_of(driver: str, directory: Path) -> tuple[Offer, ...]:
    """What ``"module:Class"`` or ``"./file.py:Class"`` has under names without an underscore; nothing if it cannot be
    told. Base classes in other files are not followed.
    """
    place, _, name = driver.rpartition(":")
    try:
        if place.endswith(".py"):
            return tuple(_in_file(directory / Path(place).expanduser(), "", name, 0))
        return tuple(_in_module(place, name, directory, 0))
    except (DriverMissingError, OSError, SyntaxError, ValueError):
        return ()


def _in_module(module: str, name: str, directory: Path, depth: int) -> Iterator[Offer]:
    spec = find_module(module, directory)
    if spec is None or not spec.origin or not spec.origin.endswith(".py") or depth > _DEEPEST:
        return
    inside = f"{module}.__init__" if spec.submodule_search_locations is not None else module
    yield from _in_file(Path(spec.origin), inside, name, depth)


def _in_file(path: Path, module: str, name: str, depth: int) -> Iterator[Offer]:
    body = ast.parse(path.read_bytes()).body
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            yield from _of_class(statement, {s.name: s for s in body if isinstance(s, ast.ClassDef)}, set())
            return
        if isinstance(statement, ast.ImportFrom):
            original = next((a.name for a in statement.names if (a.asname or a.name) == name), None)
            source = imported_from(statement, module)
            if original and source:
                yield from _in_module(source, original, path.parent, depth + 1)
                return


def _of_class(found: ast.ClassDef, beside: dict[str, ast.ClassDef], seen: set[str]) -> Iterator[Offer]:
    for statement in found.body:
        offer = _offer(statement)
        if offer is not None and not offer.name.startswith("_") and offer.name not in seen:
            seen.add(offer.name)
            yield offer
    for base in found.bases:
        if isinstance(base, ast.Name) and base.id in beside and base.id != found.name:
            yield from _of_class(beside[base.id], beside, seen)


def _offer(statement: ast.stmt) -> Offer | None:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _function(statement)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr=made), args=arguments)):
            if made in _SETTABLE | _READABLE:
                return Offer(name, "setting" if made in _SETTABLE else "reading", words=_last_words(arguments))
        case _:
            pass
    return None


def _function(found: ast.FunctionDef | ast.AsyncFunctionDef) -> Offer | None:
    marks = {ast.unparse(mark) for mark in found.decorator_list}
    words = (ast.get_docstring(found) or "").partition("\n")[0]
    if "property" in marks:
        return Offer(found.name, "reading", words=words)
    if any(mark.endswith(".setter") for mark in marks) or marks & {"staticmethod", "classmethod"}:
        return None
    positional = [*found.args.posonlyargs, *found.args.args][1:]
    required = len(positional) - len(found.args.defaults)
    arguments = tuple(
        (one.arg, ast.unparse(one.annotation) if one.annotation else "", number < required)
        for number, one in enumerate(positional)
    )
    return Offer(found.name, "method", arguments, words)


def _last_words(arguments: list[ast.expr]) -> str:
    """PyMeasure says what a property is in the last of its strings."""
    texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return " ".join(texts[-1].split()).partition(". ")[0] if texts else ""
