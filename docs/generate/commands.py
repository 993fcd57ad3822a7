"""The command line, from what typer knows of it."""

from __future__ import annotations

from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from markup import code, paragraphs, sentence, table
from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

from duodaq.cli._app import app


def one(words: list[str], like: list[list[str]]) -> str:
    """One command with its arguments and options, and those below it."""
    return _section(words[0], _commands()[words[0]], "##")


def others(words: list[str], like: list[list[str]]) -> str:
    """Every command that has no region of its own."""
    covered = {name for name, *_ in like}
    return "\n\n".join(_section(name, it, "##") for name, it in _commands().items() if name not in covered)


@cache
def _commands() -> dict[str, Any]:
    found: Any = get_command(app)
    return {name: command for name, command in found.commands.items() if not command.hidden}


def _section(name: str, command: Any, mark: str) -> str:
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if not isinstance(one, TyperArgument) and "--help" not in one.opts]
    inner: dict[str, Any] = command.commands if isinstance(command, TyperGroup) else {}
    parts = [
        f"{mark} {code(' '.join(['duodaq', name, *map(_placeholder, arguments)]))}",
        paragraphs(command.help or ""),
        table(("argument", "meaning"), ((code(_placeholder(one)), _help(one)) for one in arguments)),
        table(("option", "default", "meaning"), ((_spelled(one), _default(one), _help(one)) for one in options)),
        *(_section(f"{name} {below}", it, f"{mark}#") for below, it in inner.items() if not it.hidden),
    ]
    return "\n\n".join(part.strip() for part in parts if part)


def _placeholder(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    shown = shown if argument.required or shown.startswith("[") else f"[{shown}]"
    return f"{shown}..." if argument.nargs == -1 and not shown.endswith("...]") else shown


def _spelled(option: Any) -> str:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    return code(f"{', '.join(option.opts)} {option.metavar or _kind(option)}")


def _kind(option: Any) -> str:
    kind = option.type_descriptor.annotation
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if get_origin(kind) is Literal:
        return "{" + ", ".join(map(str, get_args(kind))) + "}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "{" + ", ".join(str(one.value) for one in kind) + "}"
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.is_flag or option.default in (None, "") or callable(option.default) else code(option.default)


def _help(param: Any) -> str:
    told = sentence(param.help or "")
    if param.envvar:
        told += f" (or the environment's {code(param.envvar)})"
    if param.multiple and "repeat" not in told and "several" not in told and "more than once" not in told:
        told += "; may be repeated"
    return told
