"""What of a lab file is nobody's but its owner's, and is left out of what others see: recordings, plans, complaints.

A key whose name says so (``token``, ``password``, ``api_key`` …) is a secret; so is what an address has behind its
host, for whoever knows that of a webhook may use it, and in any address the user, the password, and what its query
names as a secret. All of a table or a list of that name is one too.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any, cast

from duodaq.model import BEFORE_SECRET, LEFT_OUT, SECRET_WORDS, is_secret

_PLACES = ("webhook", "otlp")
_USER = re.compile(r"(?<=://)[^/?#\s\"']*@")
_PLACE = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_VALUE = r"""(?:"(?:[^"\\\n]|\\.)*"(?!")|'[^'\n]*'(?!')|[+-]?\d[\w.+-]*)"""
_SECRET_KEY = rf"(?:[A-Za-z0-9_-]*{BEFORE_SECRET})?{SECRET_WORDS}"
_KEY = rf"(?:{_SECRET_KEY}|{'|'.join(_PLACES)})"
_QUERY = re.compile(rf"""(?<=[?&;])({_SECRET_KEY}=)[^&;#\s"']+""", re.IGNORECASE)
_IN_TEXT = re.compile(rf"""(?<![\w-])({_KEY})(["']?\s*=\s*)({_VALUE})""", re.IGNORECASE)
_BEGINS = re.compile(rf"""(?<![\w-]){_KEY}["']?\s*=\s*["']?""", re.IGNORECASE)
_SCHEME = r"[a-z][a-z0-9+.-]*://[^/?#\s]*"
_SHOWN = re.compile(rf"""(?:{_SCHEME}/)?{re.escape(LEFT_OUT)}|{_SCHEME}["']""", re.IGNORECASE)
_LONG = 8
"""So many characters are found again anywhere; a shorter secret may be part of other words."""


def shown_address(address: str) -> str:
    """The scheme and the host of an address, and that there is more; of what is no address nothing."""
    found = _PLACE.fullmatch(address)
    if found is None:
        return LEFT_OUT
    return found[1] + found[2] + (f"/{LEFT_OUT}" if found[3] not in ("", "/") else "")


def shown(name: str, value: Any) -> Any:
    """The value of a key as others may see it; plain values within it likewise."""
    if isinstance(value, dict):
        return {
            key: shown(name if is_secret(name) else str(key), one) for key, one in cast("dict[Any, Any]", value).items()
        }
    if isinstance(value, list | tuple):
        return [shown(name, one) for one in cast("list[Any]", value)]
    if value is None or isinstance(value, bool):
        return value
    if is_secret(name):
        return LEFT_OUT
    if not isinstance(value, str):
        return value
    return shown_address(value) if name in _PLACES else _shown_addresses(value)


def shown_line(line: str) -> str:
    """One line of a lab file without the secrets in it, right or not; nothing of it from where it cannot be told."""
    told = _shown_addresses(_IN_TEXT.sub(_without, line))
    for found in _BEGINS.finditer(told):
        if not _SHOWN.match(told, found.end()):
            return told[: found.end()] + LEFT_OUT
    return told


def shown_value(key: str, value: str) -> str:
    """The value of a key, as TOML, as others may see it."""
    name = key.rpartition(".")[2]
    if any(is_secret(part) for part in key.split(".")):
        return f'"{LEFT_OUT}"'
    return shown_line(f"{name} = {value}").removeprefix(f"{name} = ")


def shown_text(text: str, known: Any) -> str | None:
    """The text of a lab file without its secrets, those that stand in its comments too; None if that cannot be done.

    Args:
        text: What the file says now.
        known: Plain values in which there are secrets as well: the file may have been written since.
    """
    told = _shown_addresses(_IN_TEXT.sub(_without, text))
    with contextlib.suppress(tomllib.TOMLDecodeError):
        known = [known, tomllib.loads(text)]
    secrets = sorted(set(_secrets("", known)), key=len, reverse=True)
    for secret in secrets:
        if len(secret) >= _LONG:
            told = told.replace(secret, LEFT_OUT)
    try:
        left = tomllib.loads(told)
    except tomllib.TOMLDecodeError:
        return None  # what cannot be read may have a secret anywhere
    return told if shown("", left) == left else None


def _shown_addresses(text: str) -> str:
    return _QUERY.sub(rf"\1{LEFT_OUT}", _USER.sub(f"{LEFT_OUT}@", text))


def _without(found: re.Match[str]) -> str:
    quoted = found[3][0] in "\"'"
    quote, inside = (found[3][0], found[3][1:-1]) if quoted else ('"', found[3])
    return f"{found[1]}{found[2]}{quote}{shown(found[1].lower(), inside)}{quote}"


def _secrets(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in cast("dict[Any, Any]", value).items():
            yield from _secrets(name if is_secret(name) else str(key), one)
    elif isinstance(value, list | tuple):
        for one in cast("list[Any]", value):
            yield from _secrets(name, one)
    elif isinstance(value, str) and shown(name, value) != value:
        yield value
