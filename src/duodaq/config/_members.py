"""What a class of somebody's own file has, read from the file without executing a line of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from duodaq.config._ancestry import bound

_MAKES_OTHERS = frozenset({"__getattr__", "__getattribute__"})
_DEEPEST = 20


def members_of(driver: str, directory: Path, *, beside: bool = False) -> frozenset[str] | None:
    """The names of methods and attributes of ``"./file.py:Class"``; None where only running could tell.

    That is so for a class of a package, one with a base from elsewhere, a decorator or a metaclass, and one that makes
    attributes while it runs. With `beside` a base that is imported from a file beside its own is taken for what that
    file has; an installed module of the same name would be another.
    """
    place, _, name = driver.rpartition(":")
    if not place.endswith(".py"):
        return None
    file = directory / Path(place).expanduser()
    return _in_file(file, name, 0, file.parent if beside else None)


def _in_file(file: Path, name: str, depth: int, beside: Path | None) -> frozenset[str] | None:
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, OSError, RuntimeError):
        return None
    return _members(body, name, depth, beside)


def _members(body: list[ast.stmt], name: str, depth: int, beside: Path | None) -> frozenset[str] | None:
    match [statement for statement in body if {name, "*"} & bound(statement)]:
        case [ast.ClassDef(decorator_list=[], keywords=[], bases=bases) as node] if depth < _DEEPEST:
            own = {one for statement in node.body for part in ast.walk(statement) for one in _names_in(part)}
        case [ast.ImportFrom(module=str(module), names=names)] if beside is not None and depth < _DEEPEST:
            original = next((one.name for one in names if (one.asname or one.name) == name), "*")
            return _in_file(beside / f"{module}.py", original, depth + 1, beside)
        case _:
            return None
    if own & _MAKES_OTHERS or any(_is_dynamic(part) for part in ast.walk(node)):
        return None
    for base in bases:
        if not isinstance(base, ast.Name) or base.id == name:
            return None
        inherited = frozenset[str]() if base.id == "object" else _members(body, base.id, depth + 1, beside)
        if inherited is None:
            return None
        own |= inherited
    return frozenset(own)


def _names_in(node: ast.AST) -> Iterator[str]:
    """What `node`, somewhere within a class, may add to it: too many names rather than one too few."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Attribute(ctx=ast.Store()):
            yield node.attr
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in node.names)
        case _:
            return


def _is_dynamic(node: ast.AST) -> bool:
    """Whether attributes are made under names that stand nowhere."""
    match node:
        case ast.Name(id="setattr" | "vars" | "locals" | "exec" | "globals") | ast.Attribute(attr="__dict__"):
            return True
        case ast.Attribute(attr="__setattr__"):
            return True
        case _:
            return False
