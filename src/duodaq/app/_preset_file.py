"""The file of a preset: TOML that people may read and edit."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from duodaq.errors import ConfigError, StorageError

LARGEST = 1_000_000
_REMEDY = "Save it anew, or mend it by hand"


class Preset(msgspec.Struct, frozen=True):
    """A preset: its settings by instrument and name, each with value and unit, and where it comes from."""

    name: str
    settings: dict[str, dict[str, Any]]
    units: dict[str, dict[str, str]]
    facts: dict[str, Any]


def write_preset(preset: Preset, path: Path) -> None:
    """Put its file there, whole: one that was there stands until then.

    Raises:
        StorageError: It cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text_of(preset))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def text_of(preset: Preset) -> str:
    """The file of a preset."""
    lines = [
        "# A preset of settings: `duodaq presets load NAME` sets them. Values may be edited by hand.",
        "",
        "[preset]",
    ]
    drivers: dict[str, str] = preset.facts.get("drivers", {})
    lines += [f"{key} = {_toml(value)}" for key, value in preset.facts.items() if key != "drivers"]
    for instrument, settings in preset.settings.items():
        lines += ["", f"[instruments.{_key(instrument)}]  # {drivers.get(instrument, '')}".rstrip(" #")]
        for name, value in settings.items():
            unit = preset.units.get(instrument, {}).get(name, "")
            table = f"value = {_toml(value)}, unit = {_toml(unit)}" if unit else f"value = {_toml(value)}"
            lines.append(f"{_key(name)} = {{ {table} }}")
    return "\n".join(lines) + "\n"


def preset_from(path: Path, name: str) -> Preset:
    """What a file of a preset says.

    Raises:
        ConfigError: It is none: names the file, and the key.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"is larger than {LARGEST} bytes", file=path, remedy=_REMEDY)
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=path, remedy=_REMEDY) from error
    if wrong := set(told) - {"preset", "instruments"}:
        raise ConfigError("is no key of a preset", file=path, key=sorted(wrong)[0], remedy=_REMEDY)
    settings: dict[str, dict[str, Any]] = {}
    units: dict[str, dict[str, str]] = {}
    for instrument, table in _table(told.get("instruments", {}), path, "instruments").items():
        for setting, entry in _table(table, path, f"instruments.{instrument}").items():
            key = f"instruments.{instrument}.{setting}"
            told_of = _table(entry, path, key) if isinstance(entry, dict) else {"value": entry}
            if "value" not in told_of or not set(told_of) <= {"value", "unit"}:
                raise ConfigError("must be { value = …, unit = … }", file=path, key=key, remedy=_REMEDY)
            value = plain_value(told_of["value"])
            if value is None:
                raise ConfigError("is a value that no setting can have", file=path, key=key, remedy=_REMEDY)
            settings.setdefault(instrument, {})[setting] = value
            units.setdefault(instrument, {})[setting] = str(told_of.get("unit", ""))
    return Preset(name, settings, units, _table(told.get("preset", {}), path, "preset"))


def _table(value: Any, path: Path, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("must be a table", file=path, key=key, remedy=_REMEDY)
    return cast("dict[str, Any]", value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in cast('list[Any]', value))}]"
    return msgspec.json.encode(str(value)).decode().replace("\x7f", "\\u007f")


def plain_value(value: Any) -> Any:
    """A setting's value as a file can hold it; None for what no file can."""
    value = getattr(value, "magnitude", value)
    if isinstance(value, np.ndarray | np.generic):
        value = cast("Any", value).tolist()
    if hasattr(value, "value") and not isinstance(value, str | int | float):
        value = value.value
    if isinstance(value, bool | int | str):
        return value if not isinstance(value, str) else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        found = [plain_value(one) for one in cast("Iterable[Any]", value)]
        return None if None in found else found
    return None
