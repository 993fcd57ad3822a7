"""Presets of a running lab on the command line."""

from __future__ import annotations

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from duodaq.app import PresetDiff, connect
from duodaq.cli._apply import can_ask
from duodaq.cli._console import say_json
from duodaq.cli._report import plain_table, when
from duodaq.errors import ConfigError, PartlySetError

NOBODY_TO_ASK = "Say --yes to have it set, or look with `duodaq presets diff`"


def list_presets(lab: str | None, out: Console, *, as_json: bool) -> None:
    """Print the presets of a running lab."""
    with connect(lab) as client:
        found = client.presets.list()
    if as_json:
        say_json(out, found)
        return
    if not found:
        out.print("No presets.")
        return
    table = plain_table("", ("preset", "saved", "by", "instruments", "note"), ("settings",))
    for one in found:
        saved = when(one["saved"]) if one.get("saved") else "–"
        cells = (one["name"], saved, one.get("by", ""), ", ".join(one.get("instruments", ())))
        note = one.get("error") or one.get("note", "")
        table.add_row(*(Text(str(cell)) for cell in (*cells, note, one.get("settings", "–"))))
    out.print(table)


def save_preset(lab: str | None, name: str, instruments: list[str], note: str, out: Console, *, replace: bool) -> None:
    """Save what is set now."""
    with connect(lab) as client:
        saved = client.presets.save(name, instruments or None, note=note, replace=replace)
    for instrument, settings in saved.items():
        out.print(escape(f"{instrument}: {', '.join(f'{key} = {value}' for key, value in settings.items())}"))
    out.print(escape(f"Saved as {name}."))


def show_preset_diff(lab: str | None, names: list[str], out: Console, *, as_json: bool) -> int:
    """Print what loading a preset would change, or how two differ; 1 if anything is not the same."""
    with connect(lab) as client:
        diff = client.presets.diff(names[0], names[1] if len(names) > 1 else None)
    _print(diff, out, as_json=as_json)
    return int(bool(diff.changes))


def load_preset(lab: str | None, name: str, instruments: list[str], out: Console, *, yes: bool, as_json: bool) -> int:
    """Show what a preset changes and, if somebody says yes to it, set it; the exit code.

    Raises:
        ConfigError: There is no such preset, or nobody can be asked. Nothing was set.
    """
    chosen = instruments or None
    with connect(lab) as client:
        diff = client.presets.diff(name, instruments=chosen)
        if not as_json:
            _print(diff, out, as_json=False)
        wanted = sum(row.what == "set" for row in diff)
        if wanted and not yes and not _is_wanted(wanted, out, as_json=as_json):
            out.print("Nothing was set.")
            return 1
        try:
            done = client.presets.load(name, instruments=chosen)
        except PartlySetError as error:
            if as_json:
                told = {"done": error.done, "failed": error.failed, "not_done": error.not_done, "error": error.what}
                say_json(out, told)
                return 1
            raise
    if as_json:
        _print(done, out, as_json=True)
    else:
        out.print(f"{sum(row.what == 'set' for row in done)} set.")
    return 0


def _is_wanted(count: int, out: Console, *, as_json: bool) -> bool:
    if as_json or not can_ask(out):
        raise ConfigError("nobody is there to be asked; nothing was set", remedy=NOBODY_TO_ASK)
    return typer.confirm(f"Set {count} of them?")


def _print(diff: PresetDiff, out: Console, *, as_json: bool) -> None:
    if as_json:
        say_json(out, msgspec.to_builtins(diff.rows))
    else:
        out.print(Text(repr(diff)), soft_wrap=True)
