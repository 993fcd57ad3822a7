"""Writes a lab file to begin with."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.prompt import Prompt

from duodaq.cli._catalogue import KINDS, Kind
from duodaq.config import load_lab
from duodaq.errors import ConfigError

_TCP = re.compile(r"\[?[\w.:-]+\]?:\d+")
_VISA = re.compile(r"\w+\d*::.+")
_HEAD = """\
# The lab file: its ports, and the instruments on them. `duodaq check {file}` says what it describes and what is
# wrong with it; `duodaq run {file}` runs it. Every key is in docs/reference/lab-file.md.

[lab]
name = "{name}"
"""


_NOTHING_CHOSEN = """\
# No instrument was chosen. Below is a port and an instrument of each kind that duodaq init knows: take away "# " in
# front of yours, and put its own port there. Serial lines that are plugged in:
"""
_SOME_DEVICE, _SOME_ADDRESS = "/dev/ttyUSB0", "192.168.1.20:5025"


class Line(NamedTuple):
    """A serial line that is plugged in: its device, how it is best named, and what it says it is."""

    device: str
    key: str
    says: str


class Chosen(NamedTuple):
    """An instrument of a kind, at a port; `driver` of a class of one's own."""

    kind: Kind
    where: str
    driver: str = ""


def show_kinds(out: Console) -> None:
    """Print the kinds of instrument there are."""
    width = max(map(len, KINDS))
    for kind in KINDS.values():
        out.print(escape(f"  {kind.name:{width}}  {kind.says}"))


def init_lab(file: Path, added: Sequence[str], out: Console) -> None:
    """Write the lab file and say what to do next.

    Raises:
        ConfigError: It is there already, a kind is unknown, or a port is none. Nothing was written.
    """
    if file.exists():
        raise ConfigError("is there already; nothing was written", file=file, remedy="Name another file")
    lines = _plugged_in()
    chosen = [_chosen(text) for text in added]
    if not added and sys.stdin.isatty() and out.is_terminal:
        chosen = _ask(lines, out)
    text = _text(file, chosen, lines)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=file) from error
    counts = f"instruments: {len(chosen)}, serial lines found: {len(lines)}"
    out.print(f"Wrote {escape(str(file))} ({counts}).", soft_wrap=True)
    if not chosen:
        out.print("It has a stanza of each kind behind #: take that away in front of yours.")
    try:
        load_lab(file)
    except ConfigError as error:
        out.print(f"[yellow]Before it runs it wants your hand: {escape(str(error))}[/]", soft_wrap=True)
    out.print(f"Next: duodaq check {escape(str(file))}, then duodaq run {escape(str(file))}", soft_wrap=True)


def _chosen(text: str) -> Chosen:
    name, _, where = text.partition("=")
    kind = KINDS.get(name)
    if kind is None or not where:
        remedy = f"Write KIND=WHERE; the kinds are {', '.join(KINDS)}"
        raise ConfigError(f"{text!r} is no instrument and port", key="--add", remedy=remedy)
    if kind.name != "own":
        return Chosen(kind, where)
    driver, at, where = where.rpartition("@")
    if not at or ":" not in driver:
        raise ConfigError(f"{text!r} names no class", key="--add", remedy="Write own=./chopper.py:Chopper@/dev/ttyUSB3")
    return Chosen(kind, where, driver)


def _ask(lines: Sequence[Line], out: Console) -> list[Chosen]:
    """Ask at the terminal what is at each line, and what is at other ports."""
    chosen: list[Chosen] = []
    show_kinds(out)
    if not lines:
        out.print("No serial line is plugged in.")
    for line in lines:
        question = escape(f"What is at {line.device} ({line.says})? A kind, or file.py:Class")
        if (one := _asked(question, "nothing", lambda said, at=line.device: _at(said, at), out)) is not None:
            chosen.append(one)
    more = "Another one, as KIND=WHERE: a device, HOST:PORT, or a VISA resource (Enter: no more)"
    while (one := _asked(more, "", _chosen, out)) is not None:
        chosen.append(one)
    return chosen


def _asked(question: str, none: str, understand: Callable[[str], Chosen], out: Console) -> Chosen | None:
    """Ask until it is understood; None for `none`."""
    while (said := Prompt.ask(question, default=none, show_default=bool(none), console=out).strip()) != none:
        try:
            return understand(said)
        except ConfigError as error:
            out.print(f"[yellow]{escape(str(error))}[/]", soft_wrap=True)
    return None


def _at(said: str, device: str) -> Chosen:
    return _chosen(f"{said}={device}" if said in KINDS or ":" not in said else f"own={said}@{device}")


def _text(file: Path, chosen: Sequence[Chosen], lines: Sequence[Line]) -> str:
    name = re.sub(r"[^\w-]", "-", file.resolve().stem) or "lab"
    parts = [_HEAD.format(file=file, name=name)]
    used: dict[str, int] = {}
    for one in chosen:
        word = one.kind.name if one.kind.name != "own" else re.sub(r"\W", "", one.driver.rpartition(":")[2]).lower()
        used[word] = used.get(word, 0) + 1
        parts.append(_stanzas(one, word if used[word] == 1 else f"{word}{used[word]}", lines))
    if not chosen:
        parts.append(_samples(lines))
    taken = {one.where for one in chosen} if chosen else {line.device for line in lines}
    free = [line for line in lines if line.device not in taken]
    if free:
        parts.append("# Also plugged in:\n" + "".join(f"# serial = {{ {line.key} }}  # {line.says}\n" for line in free))
    return "\n".join(parts)


def _samples(lines: Sequence[Line]) -> str:
    """A stanza of each kind, behind ``# ``: for the lines that are there as far as they go."""
    devices = [line.device for line in lines] or [_SOME_DEVICE]
    found = [f"#   {line.device}: {line.says or 'a serial line'}\n" for line in lines] or ["#   none\n"]
    parts = [_NOTHING_CHOSEN, *found]
    for number, kind in enumerate(KINDS.values()):
        where = devices[number] if number < len(devices) else devices[-1]
        one = Chosen(kind, _SOME_ADDRESS if kind.codec == "scpi" else where, "./chopper.py:Chopper")
        stanza = _stanzas(one, kind.name if kind.name != "own" else "chopper", lines)
        parts.append(
            f"\n# {kind.says}:\n\n" + "".join(f"# {line}\n" if line else "#\n" for line in stanza.splitlines())
        )
    return "".join(parts)


def _stanzas(one: Chosen, name: str, lines: Sequence[Line]) -> str:
    kind = one.kind
    codec = f'codec = "{kind.codec}"\n' if kind.codec else ""
    port = f"[ports.{name}]\n{_address(one, lines)}\n{codec}{kind.port_more}"
    return f"{port}\n{kind.stanza.replace('$id', name).replace('$driver', one.driver)}"


def _address(one: Chosen, lines: Sequence[Line]) -> str:
    if _VISA.fullmatch(one.where):
        return f'visa = "{one.where}"'
    if _TCP.fullmatch(one.where):
        return f'tcp = "{one.where}"'
    if not one.where.startswith(("/", "COM")):
        remedy = "A port is a serial device by its whole path, HOST:PORT, or a VISA resource name"
        raise ConfigError(f"{one.where!r} is no port", key="--add", remedy=remedy)
    key = next((line.key for line in lines if line.device == one.where), f'path = "{one.where}"')
    return f"serial = {{ {key}, {one.kind.serial} }}"


def _plugged_in() -> list[Line]:
    """The serial lines on this machine; one on USB is named by its identity, which stays when its device changes."""
    if importlib.util.find_spec("serial") is None:
        return []
    from serial.tools import list_ports

    return [_line(port) for port in sorted(list_ports.comports())]


def words_of(port: object) -> str:
    """What a serial line says of itself; "" where it says nothing, for which its library has a word."""
    said = str(getattr(port, "description", "") or "")
    return "" if said == "n/a" else said


def _line(port: object) -> Line:
    vid, pid, number = (getattr(port, name, None) for name in ("vid", "pid", "serial_number"))
    device, says = str(getattr(port, "device", "")), words_of(port)
    if vid is None or pid is None:
        return Line(device, f'path = "{device}"', says)
    usb = f"{vid:04x}:{pid:04x}" + (f":{number}" if number else "")
    return Line(device, f'usb = "{usb}"', says)
