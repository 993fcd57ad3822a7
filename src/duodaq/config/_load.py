"""Reading a lab file: bytes → TOML → tables → definitions, and every problem of it at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from duodaq.config._alarm_checks import check_alarms, check_observers
from duodaq.config._build import build
from duodaq.config._checks import check_lab, check_tables
from duodaq.config._complaints import Said, complaints
from duodaq.config._lab_file import LabFile
from duodaq.config._left_out import shown_line
from duodaq.config._positions import KeyPath, Positions
from duodaq.config._words import nearest
from duodaq.errors import ConfigError
from duodaq.model import LabDefinition

_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def load_lab(path: str | Path) -> LabDefinition:
    """Read a lab file.

    Everything that can be known without hardware is checked: keys, types, names, ports, codecs, and that each driver's
    class exists. No code of a driver is executed and nothing is opened.

    Args:
        path: The file. Paths inside it are relative to its folder.

    Raises:
        ConfigError: All that is wrong with the file at once, each with line, key and what would be right.
    """
    file = Path(path)
    return load_text(_read(file), file)


def load_text(text: str, file: Path) -> LabDefinition:
    """What `load_lab` makes of a file that holds `text`; nothing is read from it."""
    values, positions = _parse(file, text), Positions(text)
    try:
        tables = LabFile.model_validate(values)
    except ValidationError as error:
        problems = complaints(error)
        raise _together(file, positions, [*problems, *_elsewhere(values, problems, file)]) from None
    lab = build(tables, file)
    problems = [*check_tables(tables, lab), *check_lab(lab), *check_alarms(lab), *check_observers(tables)]
    if problems:
        raise _together(file, positions, problems)
    return lab


def _elsewhere(values: dict[str, Any], problems: list[Said], file: Path) -> list[Said]:
    """What else is wrong with a file of which some stanzas cannot be read: what the others say of themselves.

    Nothing is said that may follow from a problem: of a stanza that has one, of instruments on such a port, of a
    runtime whose instruments are not all known; and nothing at all where a whole table is wrong.
    """
    if any(len(path) == 1 for path, _, _ in problems):
        return []
    wrong = {path[:2] for path, _, _ in problems}
    try:
        tables = LabFile.model_validate(_readable(values, wrong))
    except ValidationError:
        return []
    lab = build(tables, file)
    if any(path[0] == "instruments" for path in wrong):
        wrong |= {("runtimes", "v2"), ("runtimes", "v4"), *(("alarms", one.name) for one in lab.alarms)}
    wrong |= {("instruments", one.id) for one in lab.instruments if ("ports", one.port) in wrong}
    return [
        said for said in (*check_tables(tables, lab), *check_lab(lab), *check_alarms(lab)) if said[0][:2] not in wrong
    ]


def _readable(values: dict[str, Any], wrong: Iterable[KeyPath]) -> dict[str, Any]:
    """The same without the stanzas that are wrong; but a port has to be there, for those who name it."""
    kept = {name: dict(table) for name, table in values.items()}
    for table, name in wrong:
        kept[str(table)].pop(name)
        if table == "ports":
            kept["ports"][name] = {"tcp": f"{name}:1"}
    return kept


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("there is no such file", file=file, remedy=_labs_beside(file)) from None
    except IsADirectoryError:
        raise ConfigError("is a folder", file=file, remedy=_labs_beside(file / "lab.toml")) from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError("is not UTF-8 text", file=file, line=line, remedy="Save it as UTF-8") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot be read: {reason}", file=file, remedy="Check who may read it (ls -l)") from None


def _labs_beside(file: Path) -> str:
    folder = file.parent
    found = sorted(other.name for other in folder.glob("*.toml")) if folder.is_dir() else []
    if not found:
        return f"There is no .toml file in {folder} either" if folder.is_dir() else f"There is no folder {folder}"
    meant = nearest(file.name, found)
    return f"Did you mean {folder / meant}?" if meant else f"In {folder} there is: {', '.join(found)}"


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError("is nested too deeply", file=file, remedy="No key needs more than a few levels") from None
    except tomllib.TOMLDecodeError as error:
        message, place = str(error), _PLACE.search(str(error))
        if message.startswith(("Cannot declare", "Cannot overwrite")):
            positions = Positions(text)
            twice = [path for path in positions.again if not any(path[:n] in positions.again for n in range(len(path)))]
            if twice:
                said = [(positions.again[path], _declared_twice(path, positions)) for path in twice]
                raise _listed(file, [_error(file, line, *problem) for line, problem in said]) from None
        line = int(place[1]) if place is not None and place[1] else text.count("\n") + 1
        shown = shown_line(text.splitlines()[line - 1].strip()) if line <= len(text.splitlines()) else ""
        what = f"is not TOML: {_PLACE.sub('', message).lower()}"
        raise ConfigError(what, file=file, line=line, remedy=f"The line reads: {shown}" if shown else None) from None


def _declared_twice(path: KeyPath, positions: Positions) -> Said:
    return path, f"is here for the second time; the first is on line {positions.first[path]}", "Rename or remove one"


def _together(file: Path, positions: Positions, problems: Iterable[Said]) -> ConfigError:
    return _listed(file, [_error(file, positions.line(said[0]), *said) for said in problems])


def _error(file: Path, line: int | None, path: KeyPath, what: str, remedy: str | None) -> ConfigError:
    return ConfigError(what, file=file, line=line, key=_dotted(path), remedy=remedy)


def _listed(file: Path, errors: list[ConfigError]) -> ConfigError:
    """One problem as it is; several as one error that has each on a line of its own, in the order of the file."""
    if len(errors) == 1:
        return errors[0]
    errors.sort(key=lambda error: error.line or 0)
    return ConfigError(f"{len(errors)} problems\n" + "\n".join(map(str, errors)), file=file)


def _dotted(path: KeyPath) -> str | None:
    """A path as it is written in TOML: ``instruments.dmm.poll.voltage``, ``args.list[2]``."""
    dotted = ""
    for part in path:
        if isinstance(part, int):
            dotted += f"[{part}]"
        else:
            dotted += f".{part}" if _BARE_KEY.fullmatch(part) else f'."{part}"'
    return dotted.lstrip(".") or None
