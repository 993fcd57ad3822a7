"""How what a person wrote reaches a worker: by its name where the worker can import that, else by value."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, cast, get_args

import cloudpickle
import msgspec

from duodaq.model import Command

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_COMMANDS: frozenset[type[Any]] = frozenset(get_args(Command))
_SHORT = 64


def dumps(value: Any, look: Callable[[Any], None] | None = None) -> bytes:
    """`value` pickled for another process of this program.

    A class or function goes by value if its module cannot be imported by name from ``sys.path``, which workers share: a
    cell of a notebook, a script, a file that was loaded by its path. Raises whatever pickling it raises.

    Args:
        value: What travels.
        look: Called with each object in it before that is pickled; raises for what may not be.
    """
    if look is None and is_plain(value):
        return pickle.dumps(value, protocol=5)
    with io.BytesIO() as file:
        pickler = _Pickler(file, protocol=5)
        pickler.look = look
        pickler.dump(value)
        return file.getvalue()


def is_plain(value: Any, depth: int = 4) -> bool:
    """Whether there is nothing in it that could go by value: plain pickling says the same then, in half the time.

    A command with its arguments is; what is long or deep is not looked through.
    """
    kind = cast("type[Any]", type(value))
    if kind in _ATOMS:
        return True
    if not depth:
        return False
    if kind in _COMMANDS:
        parts = [getattr(value, name) for name in kind.__struct_fields__]
    elif kind in (tuple, list, dict) and len(value) <= _SHORT:
        parts = [*value, *value.values()] if kind is dict else value
    else:
        return False
    return all(is_plain(part, depth - 1) for part in parts)


class _Pickler(cloudpickle.Pickler):
    look: Callable[[Any], None] | None = None

    def reducer_override(self, obj: Any, /) -> Any:
        if self.look is not None:
            self.look(obj)
        if isinstance(obj, type | types.FunctionType):
            _decide(obj.__module__)
        reduced = super().reducer_override(obj)
        if isinstance(obj, msgspec.StructMeta) and isinstance(reduced, tuple):
            return _reduce_struct(obj)
        return reduced


_CONFIG = (
    "array_like", "cache_hash", "dict", "eq", "forbid_unknown_fields", "frozen", "gc", "omit_defaults", "order",
    "repr_omit_defaults", "tag", "tag_field", "weakref",
)  # fmt: skip
_AT_ONCE = ("__module__", "__annotations__", "__doc__", "__post_init__")


def _reduce_struct(kind: Any) -> tuple[Any, ...]:
    """A struct's class by value: its fields must be there when it is made, where cloudpickle adds them afterwards."""
    own = dict(cast("dict[str, Any]", vars(kind)))
    begin = {name: own.pop(name) for name in _AT_ONCE if name in own}
    fields: dict[str, dict[str, Any]] = {}
    for field in msgspec.structs.fields(kind):
        if own.pop(field.name, None) is not None:
            facts = {"default": field.default, "default_factory": field.default_factory, "name": field.encode_name}
            fields[field.name] = {name: fact for name, fact in facts.items() if fact is not msgspec.NODEFAULT}
    own.pop("__slots__", None)
    parameters = inspect.signature(kind).parameters
    config = {name: getattr(kind.__struct_config__, name) for name in _CONFIG}
    config["kw_only"] = any(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in fields)
    begin["__qualname__"] = kind.__qualname__
    return _make_struct, (type(kind), kind.__name__, kind.__bases__, begin, fields, config), own, None, None, _set_all


def _make_struct(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    begin: dict[str, Any],
    fields: dict[str, dict[str, Any]],
    config: dict[str, Any],
) -> Any:
    return meta(name, bases, {**begin, **{n: msgspec.field(**facts) for n, facts in fields.items()}}, **config)


def _set_all(kind: type, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(kind, name, value)


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
