from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from duodaq.errors import ConfigError
from duodaq.model import InstrumentDefinition, install_command

_FILES: dict[tuple[Path, int], ModuleType] = {}
_FILES_LOCK = threading.Lock()


def load_driver(definition: InstrumentDefinition) -> Callable[..., Any]:
    """The driver class that `definition` names: ``"package.module:Class"``, ``"./file.py:Class"``, or itself.

    A file is looked for relative to the lab file's directory, which is also where it finds its neighbours by `import`.
    It is read again when it has changed since.

    Raises:
        ConfigError: No such module, file or class, or its code fails at import; says what would be right.
    """
    driver = definition.driver
    if not isinstance(driver, str):
        return driver
    key = f"instruments.{definition.id}.driver"
    where, colon, name = driver.rpartition(":")
    if not colon or not where or not name:
        raise ConfigError(
            f"{driver!r} names no class", key=key, remedy='Write "package.module:Class" or "./file.py:Class".'
        )
    module = _file_module(definition, where, key) if where.endswith(".py") else _module(where, key)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(f"{where} has no class {name!r}", key=key, remedy=_classes_in(module))
    return found


def imported_by(definition: InstrumentDefinition) -> tuple[str, ...]:
    """The libraries that the file of a driver imports first of all, told from its text; none for any other driver.

    Modules beside the file are none of them: nobody knows what these do when they are imported.
    """
    where = definition.driver.rpartition(":")[0] if isinstance(definition.driver, str) else ""
    if not where.endswith(".py"):
        return ()
    path = (definition.base_dir or Path()).joinpath(Path(where).expanduser())
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RuntimeError):
        return ()  # it will be told when it is to be loaded
    found: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            found.append(statement.module)
    beside = {name: (path.parent / name.partition(".")[0]) for name in found}
    return tuple(name for name, place in beside.items() if not (place.is_dir() or place.with_suffix(".py").exists()))


def _module(where: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = error.name or where
        raise ConfigError(f"there is no module {missing!r} here", key=key, remedy=_install(missing, where)) from error
    except Exception as error:
        raise ConfigError(
            f"importing {where} failed: {type(error).__name__}: {error}",
            key=key,
            remedy="Mend it, or its driver library.",
        ) from error


def _install(missing: str, where: str) -> str:
    package = missing.split(".")[0]
    if "." in missing and package in sys.modules:
        return f"{package} is installed, but has no {missing!r}: check the spelling, or its version."
    if where.split(".")[0] != package:
        return f"{where} needs it: install {package} with `{install_command(package)}`."
    return f"Install it with `{install_command(package)}`, or check the spelling."


def _file_module(definition: InstrumentDefinition, where: str, key: str) -> ModuleType:
    path = (definition.base_dir or Path()).joinpath(Path(where).expanduser()).resolve()
    try:
        version = path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", key=key, remedy="Paths are relative to the lab file."
        ) from error
    with _FILES_LOCK:
        module = _FILES.get((path, version))
        if module is None:
            module = _FILES[path, version] = _execute(path, key)
    return module


def _execute(path: Path, key: str) -> ModuleType:
    name = f"duodaq_driver_{path.stem}_{hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file", key=key)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        missing = error.name or str(path)
        raise ConfigError(
            f"{path} imports {missing!r}, which is not here", key=key, remedy=_install(missing, path.stem)
        ) from error
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"running {path} failed: {type(error).__name__}: {error}", key=key, remedy="Mend the file."
        ) from error
    return module


def _classes_in(module: ModuleType) -> str:
    names = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    return f"It has {', '.join(sorted(names)[:12])}." if names else "It has no class of its own."
