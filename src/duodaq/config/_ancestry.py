"""Whether a class can be an actor, found out by following its bases through files, without executing any of them."""

from __future__ import annotations

import ast
from pathlib import Path

from duodaq.config._driver_lookup import DriverMissingError, find_module

CLASSIC_PACKAGES = frozenset(
    {"instrumental", "ophyd", "ophyd_async", "pymeasure", "pyvcam", "pyvisa", "qcodes", "serial", "thorlabs_elliptec"}
)
"""Libraries of blocking drivers: none of their classes is an actor, whatever it is derived from."""
_DEEPEST = 20


def is_no_actor(driver: str, directory: Path) -> bool:
    """Whether ``"module:Class"`` or ``"./file.py:Class"`` is surely no actor; False where only running could tell."""
    place, _, name = driver.rpartition(":")
    if not place.endswith(".py"):
        return _not_in_module(place, name, directory, 0)
    return _not_in_file(directory / Path(place).expanduser(), "", name, directory, 0)


def _not_in_module(module: str, name: str, directory: Path, depth: int) -> bool:
    package = module.partition(".")[0]
    if package in CLASSIC_PACKAGES:
        return True
    if package == "duodaq" and not module.startswith("duodaq.cli."):
        return False
    try:
        spec = find_module(module, directory)
    except DriverMissingError:
        beside = directory / f"{module}.py"
        return beside.is_file() and _not_in_file(beside, module, name, directory, depth)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return False
    inside = f"{module}.__init__" if spec.submodule_search_locations is not None else module
    return _not_in_file(Path(spec.origin), inside, name, directory, depth)


def _not_in_file(path: Path, module: str, name: str, directory: Path, depth: int) -> bool:
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        return False
    binding = [statement for statement in body if name in bound(statement)]
    if len(binding) != 1 or depth > _DEEPEST:
        return False  # bound in a branch, or more than once
    match binding[0]:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return not binding[0].decorator_list
        case ast.ClassDef(bases=bases, keywords=[], decorator_list=[]):
            return all(_not_by_base(base, path, module, name, directory, depth + 1) for base in bases)
        case ast.ImportFrom() as statement:
            source = imported_from(statement, module)
            original = next(a.name for a in statement.names if (a.asname or a.name) == name)
            return bool(source) and _not_in_module(source, original, directory, depth + 1)
        case _:
            return False


def _not_by_base(base: ast.expr, path: Path, module: str, name: str, directory: Path, depth: int) -> bool:
    if not isinstance(base, ast.Name) or base.id == name:
        return False
    return base.id == "object" or _not_in_file(path, module, base.id, directory, depth)


def bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds; of one with others in it, all that these may; ``*`` if any."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {statement.name}
        case _:
            return {name for node in ast.walk(statement) for name in _bound_by(node)}


def _bound_by(node: ast.AST) -> set[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        case ast.Name(ctx=ast.Store()):
            return {node.id}
        case _:
            return set()


def imported_from(statement: ast.ImportFrom, module: str) -> str:
    """The absolute name of the module imported from; empty if it cannot be told."""
    if not statement.level:
        return statement.module or ""
    parents = module.split(".")[: -statement.level]
    return ".".join([*parents, *([statement.module] if statement.module else [])]) if parents else ""
