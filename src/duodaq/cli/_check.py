from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from duodaq.config import describe, load_lab


def check_lab(file: Path, out: Console) -> None:
    """Print what the lab file describes, and what a person should know of it before running it.

    Raises:
        ConfigError: Something in the file is wrong.
    """
    lab = load_lab(file)
    counts = {name: sum(i.runtime == name for i in lab.instruments) for name in ("v2", "v4")}
    ports, instruments = _counted(len(lab.ports), "port"), _counted(counts["v2"], "instrument")
    out.print(f"[bold]{escape(lab.name)}[/]: {ports}, {instruments} in V2, {counts['v4']} in V4.")
    notes = Table.grid(padding=(0, 1))
    for note in describe(lab):
        notes.add_row(" ·", escape(note))
    out.print(notes)
    out.print("[green]The file is right.[/]")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
