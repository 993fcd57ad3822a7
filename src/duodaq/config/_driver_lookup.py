"""Whether a driver's class exists, found out without executing a line of anybody's code."""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from duodaq.config._words import choose, nearest
from duodaq.model import install_command

BUILT_IN_CODECS: dict[str, str | None] = {
    "Elliptec": "ell14",
    "Esp300": "esp300",
    "MaiTai": "maitai",
    "Newport1830C": "newport1830c",
    "PvcamActor": None,
    "ScpiActor": "scpi",
}
"""The actors that come with duodaq (``driver = "duodaq:Esp300"``), and the codec that each needs on its port."""


class DriverMissingError(Exception):
    """There is no such driver: what is missing, and what would be right."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def built_in(driver: str) -> str | None:
    """The name of the built-in actor that `driver` means, known or not; None for any other driver."""
    return driver.removeprefix("duodaq:") if driver.startswith("duodaq:") else None


def find_driver(driver: str, directory: Path) -> None:
    """Make sure that ``"module:Class"`` or ``"./file.py:Class"`` exists, relative to `directory`.

    Raises:
        DriverMissingError: It does not, or it is not written in one of these ways.
    """
    place, colon, name = driver.rpartition(":")
    is_file = place.endswith(".py")
    if colon and not is_file and ("/" in place or "\\" in place):
        remedy = f'A file is named with its ending: driver = "{place}.py:{name}"'
        raise DriverMissingError(f'"{place}" is neither a module nor a Python file', remedy)
    is_named = is_file or all(part.replace("-", "_").isidentifier() for part in place.split("."))
    if not (colon and is_named and all(part.isidentifier() for part in name.split("."))):
        raise DriverMissingError(
            f'"{driver}" is not a driver',
            'Write "package.module:Class", "./file.py:Class", or for an actor of duodaq "duodaq:Esp300"',
        )
    if place == "duodaq":
        _find_built_in(name)
    elif is_file:
        _find_in_file(place, name, directory)
    else:
        _find_in_module(place, name, directory)


def _find_built_in(name: str) -> None:
    if name not in BUILT_IN_CODECS:
        raise DriverMissingError(f'duodaq has no actor "{name}"', choose(name, BUILT_IN_CODECS, "Its actors"))


def _find_in_file(place: str, name: str, directory: Path) -> None:
    path = _existing(place, directory)
    if path is None:
        others = [file.name for file in directory.glob("*.py")] if directory.is_dir() else []
        raise DriverMissingError(
            f"there is no file {place} beside the lab file", choose(Path(place).name, others, "Python files there")
        )
    _need_name(path, name, place)


def _existing(place: str, directory: Path) -> Path | None:
    try:
        path = directory / Path(place).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # a name too long for the system, a folder closed to us; ~ of nobody
        return None


def _find_in_module(place: str, name: str, directory: Path) -> None:
    spec = find_module(place, directory)
    if spec is not None and spec.origin and spec.origin.endswith(".py"):
        _need_name(Path(spec.origin), name, place)


def find_module(module: str, directory: Path) -> ModuleSpec | None:
    """The spec of a module, found from its parents' folders without importing them.

    Returns:
        None where only importing could tell (a parent that is no plain package).

    Raises:
        DriverMissingError: No such module.
    """
    spec: ModuleSpec | None = None
    folders: list[str] | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = _find_spec(name, folders)
        if spec is None:
            raise _package_missing(name, directory) if depth == 1 else _module_missing(name, folders or [])
        folders = list(spec.submodule_search_locations or ())
        if depth < len(parts) and not folders:
            return None
    return spec


def _find_spec(name: str, folders: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find_spec(name, folders) if find_spec is not None else None
        if spec is not None:
            return spec
    return None


def _package_missing(package: str, directory: Path) -> DriverMissingError:
    if (directory / f"{package}.py").is_file():
        remedy = f'It stands beside the lab file, so name the file: driver = "./{package}.py:Class"'
    else:
        remedy = f'Install it ({install_command(package)}), or name a file: driver = "./{package}.py:Class"'
    return DriverMissingError(f'there is no module "{package}" in this environment', remedy)


def _module_missing(module: str, folders: list[str]) -> DriverMissingError:
    package, _, name = module.rpartition(".")
    meant = nearest(name, [info.name for info in pkgutil.iter_modules(folders)])
    return DriverMissingError(
        f'there is no module "{module}"',
        f'Did you mean "{package}.{meant}"?' if meant else f"{package} is installed, in {folders[0]}; look there",
    )


def _need_name(path: Path, name: str, place: str) -> None:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError) as error:
        raise DriverMissingError(f"{place} is not readable Python: {error}", "Mend the file first") from None
    names = set(_names(tree.body))
    if name.partition(".")[0] not in names and not names & {"*", "__getattr__"}:
        raise DriverMissingError(f'{place} has no class "{name}"', choose(name, _classes(path, tree)[:30], "It has"))


def _classes(path: Path, tree: ast.Module) -> list[str]:
    """The classes that a module defines; where it has none or is a package, the imported names that look like one."""
    found = {node.name for node in _statements(tree.body) if isinstance(node, ast.ClassDef)}
    if not found or path.name == "__init__.py":
        found |= {name for name in _names(tree.body) if name[:1].isupper()}
    return sorted(name for name in found if not name.startswith("_"))


def _statements(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements, those in branches too."""
    for statement in statements:
        yield statement
        if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(_inside(statement))


def _inside(statement: ast.stmt) -> Iterator[ast.stmt]:
    for part in ("body", "orelse", "finalbody"):
        yield from getattr(statement, part, [])
    for handler in getattr(statement, "handlers", []):
        yield from handler.body


def _names(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that a module's body binds, in branches too; ``*`` for a star import, behind which anything may be."""
    for statement in statements:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in statement.names)
            case ast.Assign():
                yield from (
                    node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
                )
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                yield from _names(_inside(statement))
