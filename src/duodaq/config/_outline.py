"""What a driver's class offers, read from its source without executing a line of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from duodaq.config._ancestry import imported_from
from duodaq.config._driver_lookup import DriverMissingError, find_module

_DEEPEST = 8
_SETTABLE = frozenset({"control", "setting"})
_READABLE = frozenset({"measurement"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class Offer(NamedTuple):
    """Something that a driver's class has: a method with its arguments, or a property that is read or set."""

    name: str
    kind: Literal["method", "setting", "reading"]
    arguments: tuple[tuple[str, str, bool], ...] = ()
    """Of each its name, its annotation, and whether it must be given."""
    words: str = ""
    defaults: tuple[tuple[str, Any], ...] = ()
    """Of each argument that has a default which its source spells out: name and default."""


def offers_of(driver: str, directory: Path) -> tuple[Offer, ...]:
    """What ``"module:Class"`` or ``"./file.py:Class"`` has under names without an underscore; nothing if it cannot be
    told. Base classes are followed into other files, but not from a library's: what every one of its drivers inherits
    is the library's own machinery.
    """
    place, _, name = driver.rpartition(":")
    try:
        if place.endswith(".py"):
            return tuple(_in_file(directory / Path(place).expanduser(), "", name, 0))
        return tuple(_in_module(place, name, directory, 0))
    except (DriverMissingError, OSError, SyntaxError, ValueError):
        return ()


def _in_module(module: str, name: str, directory: Path, depth: int) -> Iterator[Offer]:
    try:
        spec = find_module(module, directory)
    except DriverMissingError:
        beside = directory / f"{module}.py"
        if not beside.is_file():
            raise
        yield from _in_file(beside, module, name, depth)
        return
    if spec is None or not spec.origin or not spec.origin.endswith(".py") or depth > _DEEPEST:
        return
    inside = f"{module}.__init__" if spec.submodule_search_locations is not None else module
    yield from _in_file(Path(spec.origin), inside, name, depth)


def _in_file(path: Path, module: str, name: str, depth: int) -> Iterator[Offer]:
    body = ast.parse(path.read_bytes()).body
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            beside = {s.name: s for s in body if isinstance(s, ast.ClassDef)}
            seen: set[str] = set()
            for offer in _of_class(statement, beside, _Elsewhere(path, module, depth)):
                if offer.name not in seen:
                    seen.add(offer.name)
                    yield offer
            return
        if isinstance(statement, ast.ImportFrom):
            original = next((a.name for a in statement.names if (a.asname or a.name) == name), None)
            source = imported_from(statement, module)
            if original and source:
                yield from _in_module(source, original, path.parent, depth + 1)
                return


class _Elsewhere(NamedTuple):
    """Where a class was found, so that its base classes can be looked for from there."""

    path: Path
    module: str
    depth: int

    def offers(self, base: str) -> Iterator[Offer]:
        """What a base class has that is imported in that file."""
        if self.depth < _DEEPEST and not _INSTALLED & set(self.path.parts):
            with suppress(
                DriverMissingError, OSError, SyntaxError, ValueError
            ):  # what it cannot tell, others still can
                yield from _in_file(self.path, self.module, base, self.depth + 1)


def _of_class(found: ast.ClassDef, beside: dict[str, ast.ClassDef], elsewhere: _Elsewhere) -> Iterator[Offer]:
    settable = {mark.removesuffix(".setter") for one in found.body for mark in _marks(one) if mark.endswith(".setter")}
    for statement in found.body:
        offer = _offer(statement)
        if offer is not None and not offer.name.startswith("_"):
            yield offer._replace(kind="setting") if offer.kind == "reading" and offer.name in settable else offer
    for base in found.bases:
        if not isinstance(base, ast.Name) or base.id == found.name:
            continue
        if base.id in beside:
            yield from _of_class(beside[base.id], beside, elsewhere)
        else:
            yield from elsewhere.offers(base.id)


def _marks(found: ast.stmt) -> set[str]:
    return {ast.unparse(mark) for mark in found.decorator_list} if isinstance(found, ast.FunctionDef) else set()


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
    return Offer(found.name, "method", arguments, words, tuple(_defaults(positional[required:], found.args.defaults)))


def _defaults(positional: list[ast.arg], written: list[ast.expr]) -> Iterator[tuple[str, Any]]:
    for one, default in zip(positional, written, strict=True):
        with suppress(ValueError):  # an expression: what it comes to, only its own code knows
            yield one.arg, ast.literal_eval(default)


def _last_words(arguments: list[ast.expr]) -> str:
    """PyMeasure says what a property is in the last of its strings."""
    texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return " ".join(texts[-1].split()).partition(". ")[0] if texts else ""
