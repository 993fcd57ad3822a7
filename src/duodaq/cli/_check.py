from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from duodaq.cli._apply import of_running_lab
from duodaq.cli._console import say_json
from duodaq.config import describe, load_lab
from duodaq.errors import PortOpenError
from duodaq.model import LabDefinition
from duodaq.ports import UsbIdentity, UsbTty, usb_ttys


def check_lab(file: Path, out: Console, *, as_json: bool = False) -> None:
    """Print what the lab file describes, and what a person should know of it before running it, or applying it.

    Raises:
        ConfigError: Something in the file is wrong.
    """
    lab = load_lab(file)
    notes_of_it = [*describe(lab), *plugged_in(lab, usb_ttys)]
    if (running := of_running_lab(file, lab.name)) is not None:
        notes_of_it.append(running)
    if as_json:
        facts = {"lab": lab.name, "file": str(lab.file), "ports": [one.name for one in lab.ports]}
        instruments = {one.id: {"runtime": one.runtime, "port": one.port} for one in lab.instruments}
        say_json(out, {**facts, "instruments": instruments, "notes": notes_of_it})
        return
    counts = {name: sum(i.runtime == name for i in lab.instruments) for name in ("v2", "v4")}
    ports, instruments = _counted(len(lab.ports), "port"), _counted(counts["v2"], "instrument")
    out.print(f"[bold]{escape(lab.name)}[/]: {ports}, {instruments} in V2, {counts['v4']} in V4.")
    notes = Table.grid(padding=(0, 1))
    for note in notes_of_it:
        notes.add_row(" ·", escape(note))
    out.print(notes)
    out.print("[green]The file is right.[/]")


def plugged_in(lab: LabDefinition, look: Callable[[], list[UsbTty]]) -> Iterator[str]:
    """Which device each port on USB is now; if it is none, or not for certain, which there are."""
    usb = [port for port in lab.ports if port.serial is not None and port.serial.get("usb")]
    try:
        ttys = look() if usb else []
    except PortOpenError as error:
        yield f"ports on USB: {error}"
        return
    for port in usb:
        serial = port.serial or {}
        identity = UsbIdentity(serial["usb"], serial.get("location"), serial.get("interface"))
        try:
            yield f"port {port.name} is {identity.find(ttys)} now"
        except PortOpenError as error:
            yield f"port {port.name}: {error}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
