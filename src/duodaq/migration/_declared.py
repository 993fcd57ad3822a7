"""What an actor of a lab's own declares, read from its file without executing a line of it.

The manager of a running lab asks for this, too, and no driver's code runs there before its instrument is moved.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duodaq.v4 import BUILT_IN
from duodaq.v4.instruments import InstrumentActor

_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Declared:
    """The names of a V4 driver.

    Attributes:
        parameters: Each, and whether setting it moves or emits; where that cannot be told: yes.
        channels: Each that is polled by itself, and what a poll of a lab file would say: ``read`` or ``call``.
        operations: The names that Execute takes.
    """

    parameters: Mapping[str, bool] = field(default_factory=dict[str, bool])
    channels: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    operations: frozenset[str] = frozenset()


def declared_by(driver: str, directory: Path | None) -> Declared | None:
    """What ``"./file.py:Class"`` declares; None where only running could tell, or where there is no such file."""
    place, _, name = driver.rpartition(":")
    if not place.endswith(".py"):
        return None
    try:
        body = ast.parse(((directory or Path()) / Path(place).expanduser()).read_bytes()).body
        return _Reader(body).declared(name, 0)
    except (_UntoldError, SyntaxError, ValueError, OSError, RuntimeError):
        return None


class _UntoldError(Exception):
    """Only running it could tell."""


class _Reader:
    def __init__(self, body: list[ast.stmt]) -> None:
        self._body = body

    def declared(self, name: str, depth: int) -> Declared:
        """What a class of this file declares, its bases included."""
        match [s for s in self._body if isinstance(s, ast.ClassDef) and s.name == name]:
            case [ast.ClassDef(bases=[base], keywords=[], decorator_list=[], body=inside)] if depth < _DEEPEST:
                above = self._base(base, depth)
            case _:
                raise _UntoldError
        if any(isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef) and s.name == "known_parameters" for s in inside):
            raise _UntoldError
        own = dict(_assigned(inside))
        return Declared(
            self._parameters(own["parameters"], depth) if "parameters" in own else above.parameters,
            self._channels(own["channels"]) if "channels" in own else above.channels,
            frozenset(_texts(own["operations"])) if "operations" in own else above.operations,
        )

    def _base(self, base: ast.expr, depth: int) -> Declared:
        if depth > _DEEPEST:
            raise _UntoldError
        name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        if any(isinstance(s, ast.ClassDef) and s.name == name for s in self._body):
            return self.declared(name, depth + 1)
        if name == "InstrumentActor":
            return Declared()
        kind: Any = BUILT_IN.get(f"duodaq:{name}")
        if kind is None or kind.known_parameters is not InstrumentActor.known_parameters:
            raise _UntoldError
        parameters = {name: parameter.emits for name, parameter in kind.parameters.items()}
        return Declared(parameters, {}, frozenset(kind.operations))

    def _parameters(self, value: ast.expr, depth: int) -> Mapping[str, bool]:
        match value:
            case ast.Dict(keys=keys, values=values):
                found: dict[str, bool] = {}
                for key, one in zip(keys, values, strict=True):
                    found |= self._parameters(one, depth) if key is None else {_text(key): self._emits(one)}
                return found
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return {**self._parameters(left, depth), **self._parameters(right, depth)}
            case ast.Attribute(value=ast.Name() as owner, attr="parameters"):
                return self._base(owner, depth + 1).parameters
            case ast.Name(id=name) if depth < _DEEPEST:
                return self._parameters(self._bound(name), depth + 1)
            case _:
                raise _UntoldError

    def _emits(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Name):
            value = next((one for name, one in _assigned(self._body) if name == value.id), value)
        if not isinstance(value, ast.Call) or any(isinstance(one, ast.Starred) for one in value.args):
            return True
        given = [k.value for k in value.keywords if k.arg in ("emits", None)] + value.args[3:4]
        return not all(isinstance(one, ast.Constant) and one.value is False for one in given)

    def _channels(self, value: ast.expr) -> Mapping[str, Mapping[str, str]]:
        """Those that can be told: what a lab file says of another comes on top all the same."""
        found: dict[str, Mapping[str, str]] = {}
        for one in value.elts if isinstance(value, ast.Tuple | ast.List) else ():
            if isinstance(one, ast.Call) and (facts := _constants(one)) and "channel" in facts:
                asked = {key: facts[key] for key in ("read", "call") if key in facts}
                found[facts["channel"]] = asked or {"call": facts["channel"]}
        return found

    def _bound(self, name: str) -> ast.expr:
        match [value for known, value in _assigned(self._body) if known == name]:
            case [value]:
                return value
            case _:
                raise _UntoldError


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case _:
                continue


def _texts(value: ast.expr) -> Iterator[str]:
    """The keys of a table, as far as they are told."""
    for key in value.keys if isinstance(value, ast.Dict) else ():
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def _text(key: ast.expr) -> str:
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    raise _UntoldError


def _constants(call: ast.Call) -> dict[str, str]:
    """The arguments of a PollDefinition that are texts, by name."""
    given = [("channel", one) for one in call.args[:1]] + [(k.arg or "", k.value) for k in call.keywords]
    return {n: v.value for n, v in given if isinstance(v, ast.Constant) and isinstance(v.value, str)}
