"""How what a person wrote reaches a worker: by its name where the worker can import that, else by value."""

from __future__ import annotations

import io
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import cloudpickle


def dumps(value: Any) -> bytes:
    """`value` pickled for another process of this program.

    A class or function goes by value if its module cannot be imported by name from ``sys.path``, which workers share: a
    cell of a notebook, a script, a file that was loaded by its path. Raises whatever pickling it raises.
    """
    with io.BytesIO() as file:
        _Pickler(file, protocol=5).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any, /) -> Any:
        if isinstance(obj, type | types.FunctionType):
            _decide(obj.__module__)
        return super().reducer_override(obj)


_decided: dict[str, tuple[types.ModuleType, tuple[str, ...]]] = {}


def _decide(name: str) -> None:
    """Have cloudpickle take a module by value from now on if workers cannot import it; looked up once for each path."""
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return  # cloudpickle does these by value by itself
    place = (module, tuple(sys.path))
    if _decided.get(name) == place:
        return
    _decided[name] = place
    if can_be_imported(module):
        if name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)
    else:
        cloudpickle.register_pickle_by_value(module)


def can_be_imported(module: types.ModuleType) -> bool:
    """Whether an import by its name would find that very module; nothing is imported to find out."""
    file: str | None = getattr(module, "__file__", None)
    if file is not None and not file.endswith(".py"):
        return True  # compiled: it goes by its name or not at all
    path: Any = None
    spec: ModuleSpec | None = None
    parts = module.__name__.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:depth]), path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return file is None or spec is None or not spec.has_location or _same(spec.origin, file)


def _find(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, path)
        if spec is not None:
            return spec
    return None


def _same(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)
