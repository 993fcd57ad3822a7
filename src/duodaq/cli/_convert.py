from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from duodaq.config import load_lab, load_text
from duodaq.errors import ConfigError
from duodaq.migration import Conversion, convert_back, convert_lab


class Asked(NamedTuple):
    """The options as they were given."""

    file: Path
    only: list[str] | None
    drivers: list[str] | None
    back: bool
    target: Path | None
    write: bool


def convert_file(asked: Asked, out: Console) -> int:
    """Convert a lab file, say what changed and what could not be; 1 if an instrument that was named was left.

    Raises:
        ConfigError: The file is wrong, or what it would become. Nothing was written.
    """
    load_lab(asked.file)
    text = asked.file.read_bytes().decode("utf-8-sig")
    only = set(asked.only) if asked.only else None
    if asked.back:
        done = convert_back(text, only)
    else:
        done = convert_lab(text, only, _drivers(asked.drivers), asked.file.absolute().parent)
    load_text(done.text, asked.file)
    _say(done, asked.file, out)
    target = asked.target or (asked.file if asked.write else None)
    if target is not None and (done.converted or asked.target):
        target.write_bytes(done.text.encode())
        out.print(Text(f"Written to {target}."))
    return 1 if only and only & done.left.keys() else 0


def _drivers(given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given or []:
        id, equals, driver = pair.partition("=")
        if not (id and equals and driver):
            raise ConfigError("is not ID=CLASS", key=f"--driver {pair}", remedy="Write --driver meter=./own.py:Meter4")
        found[id] = driver
    return found


def _say(done: Conversion, file: Path, out: Console) -> None:
    if diff := done.diff(file.name):
        out.print(Syntax(diff, "diff", background_color="default") if out.is_terminal else Text(diff))
    if not done.converted:
        out.print(Text("Nothing was turned."))
    for id in done.converted:
        for line in done.unsaid.get(id, []):
            out.print(Text(f"{id}: not turned: {line}"), soft_wrap=True)
        for line in done.needless.get(id, []):
            out.print(Text(f"{id}: left out, and nothing is lost by it: {line}"), soft_wrap=True)
    for id, why in done.left.items():
        out.print(Text(f"{id}: left as it is: {why}"), soft_wrap=True)
