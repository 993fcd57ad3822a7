"""What of a machine a lab needs, and how it is there. Nothing is changed, no port is opened."""

from __future__ import annotations

import ctypes
import grp
import importlib.util
import os
import platform
import pwd
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from duodaq.cli._console import say_json
from duodaq.cli._init import words_of
from duodaq.clock import block, monotonic_s
from duodaq.config import load_lab
from duodaq.errors import PortOpenError
from duodaq.link import process_of, running_labs
from duodaq.model import LabDefinition, PortDefinition
from duodaq.ports import UsbIdentity, programs_behind, programs_connected, programs_holding, usb_ttys

_EXTRAS: dict[str, tuple[str, ...]] = {
    "serial": ("serial",),
    "visa": ("pyvisa", "pyvisa_py"),
    "scan": ("bluesky", "xarray"),
    "data": ("duckdb", "h5py", "matplotlib", "pandas", "polars", "zarr"),
    "web": ("fastapi", "uvicorn"),
    "fast": ("uvloop",),
    "qcodes": ("qcodes",),
    "ophyd": ("ophyd", "ophyd_async"),
}
_MARKS = {"ok": "[green]✓[/]", "none": "[dim]–[/]", "poor": "[yellow]![/]", "broken": "[bold red]✗[/]"}
_SLOW_COMMIT_MS = 30.0
_FEW_BYTES = 2 * 2**30
_FEW_FILES = 1024
_REACH_S = 1.0
_FORK_S = 0.1
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of <sys/timex.h>


class Finding(NamedTuple):
    """One thing that was looked at: `verdict` is ok, none (not there, and not needed), poor or broken."""

    what: str
    verdict: str
    said: str
    remedy: str = ""


def examine(file: Path | None, out: Console, *, as_json: bool) -> int:
    """Print what was found, and what to do about it; 1 if something is broken.

    Raises:
        ConfigError: Something in the lab file is wrong.
    """
    lab = None if file is None else load_lab(file)
    place = Path.cwd() if lab is None else lab.recording_dir or lab.directory
    findings = [
        *_about_python(),
        *_about_extras(),
        *_about_serial_lines(),
        *_about_visa(),
        *_about_disk(place),
        *_about_clock(),
        *_about_system(),
        *(() if lab is None else _about_ports(lab)),
    ]
    if as_json:
        say_json(out, [finding._asdict() for finding in findings])
    else:
        _show(findings, out)
    return 1 if any(finding.verdict == "broken" for finding in findings) else 0


def _show(findings: list[Finding], out: Console) -> None:
    table = Table.grid(padding=(0, 1))
    for what, verdict, said, remedy in findings:
        table.add_row(_MARKS[verdict], f"[bold]{escape(what)}[/]", escape(said))
        if remedy:
            table.add_row("", "", f"[yellow]{escape(remedy)}[/]")
    out.print(table)
    broken = sum(finding.verdict == "broken" for finding in findings)
    poor = sum(finding.verdict == "poor" for finding in findings)
    if broken:
        out.print(f"[bold red]{broken} of {len(findings)} stand in the way of a lab.[/]")
    elif poor:
        out.print(f"[yellow]A lab runs here; {poor} of {len(findings)} could be better.[/]")
    else:
        out.print("[green]All is well.[/]")


def _about_python() -> Iterator[Finding]:
    yield Finding("duodaq", "ok", f"{metadata.version('duodaq')}, on Python {platform.python_version()}")
    if sys.platform == "linux":
        yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {os.cpu_count()} processors")
    else:
        limits = "without spare workers, port watching and journals past the page cache"
        yield Finding("system", "poor", f"{platform.system()}: it runs {limits}", "Linux is supported in full.")


def _about_extras() -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            yield Finding(f"extra {extra}", "ok", f"{', '.join(modules)} installed")
        else:
            needed = f"pip install 'duodaq[{extra}]' if you need it"
            yield Finding(f"extra {extra}", "none", f"{', '.join(missing)} not installed: {needed}")


def _about_serial_lines() -> Iterator[Finding]:
    if importlib.util.find_spec("serial") is None:
        return
    from serial.tools import list_ports

    found = sorted(list_ports.comports())
    if not found:
        yield Finding("serial lines", "none", "none is plugged in")
    for port in found:
        yield _permitted(f"serial {port.device}", port.device, words_of(port), running_labs())


def _permitted(what: str, device: str, is_what: str, labs: Collection[str] = ()) -> Finding:
    """Whether `device` may be opened; that one of `labs` has it is as it should be."""
    if not os.path.exists(device):
        return Finding(what, "broken", "is not there", "Is it plugged in? duodaq init shows which lines there are.")
    if os.access(device, os.R_OK | os.W_OK):
        behind, holders = programs_behind(device), [*programs_holding(device)]
        if any(one not in behind for one in holders):  # a program that has just been forked has it for a moment, too
            block(_FORK_S)
            before = {pid for pid, _ in holders}
            behind, holders = programs_behind(device), [h for h in programs_holding(device) if h[0] in before]
        holders = [one for one in holders if one not in behind]
        if (by_lab := _held_by(labs, holders)) is not None:
            return Finding(what, "ok", f"{is_what}: {by_lab}".lstrip(": "))
        if holders:
            said = f"{is_what}: open in {_listed(holders)}".lstrip(": ")
            return Finding(what, "poor", said, "A lab cannot open it before that is closed.")
        if behind:
            return Finding(what, "ok", f"{is_what}: served by {_listed(behind)}, and free".lstrip(": "))
        return Finding(what, "ok", is_what or "may be opened")
    group = grp.getgrgid(os.stat(device).st_gid).gr_name
    user = pwd.getpwuid(os.getuid()).pw_name
    remedy = f"Say: sudo usermod -aG {group} {user}, and log in again."
    return Finding(what, "broken", f"may not be opened by you; it belongs to the group {group}", remedy)


def _held_by(labs: Collection[str], holders: list[tuple[int, str]]) -> str | None:
    """Which of `labs` is among the holders of a port, in words."""
    mine = {pid: lab for lab in labs if (pid := process_of(lab)) is not None}
    having = next((pid for pid, _ in holders if pid in mine), None)
    return None if having is None else f"in use by the lab {mine[having]}, which runs as process {having}"


def _listed(programs: list[tuple[int, str]]) -> str:
    return ", ".join(f"process {pid} ({name})" for pid, name in programs)


def _about_visa() -> Iterator[Finding]:
    if importlib.util.find_spec("pyvisa") is None:
        return
    from pyvisa.ctwrapper.highlevel import IVIVisaLibrary

    libraries = [str(path) for path in IVIVisaLibrary.get_library_paths()]
    if libraries:
        yield Finding("VISA library", "ok", ", ".join(libraries))
    elif importlib.util.find_spec("pyvisa_py") is not None:
        yield Finding("VISA library", "ok", "pyvisa-py; no vendor's library (GPIB boards need one, or linux-gpib)")
    else:
        said = "neither a vendor's library nor pyvisa-py"
        yield Finding("VISA library", "poor", said, "pip install 'duodaq[visa]' brings pyvisa-py.")


def _about_disk(place: Path) -> Iterator[Finding]:
    what = "disk"
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    room = f"{place}: {free / 2**30:.0f} GB free"
    if free < _FEW_BYTES:
        yield Finding(what, "poor", f"{place}: {free / 2**20:.0f} MB free", "A camera fills that in seconds.")
    try:
        commit_ms, rate = _commits(there)
    except OSError as error:
        remedy = "Recordings go there: [recording] directory in the lab file says where else."
        yield Finding(what, "broken", f"{place} cannot be written: {error.strerror}", remedy)
        return
    said = f"{room}; a commit takes {commit_ms:.1f} ms, {rate / 2**20:.0f} MB/s"
    if commit_ms > _SLOW_COMMIT_MS:
        yield Finding(what, "poor", said, "Acknowledgements of recordings wait for a commit; a local SSD is quicker.")
    else:
        yield Finding(what, "ok", said)


def _commits(place: Path) -> tuple[float, float]:
    """How long a small synced write takes in the middle (ms), and how fast a large one is (bytes/s)."""
    small, large = bytes(4096), bytes(16 * 2**20)
    took: list[float] = []
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        for _ in range(20):
            begun_s = monotonic_s()
            file.write(small)
            os.fdatasync(file.fileno())
            took.append(monotonic_s() - begun_s)
        begun_s = monotonic_s()
        file.write(large)
        os.fdatasync(file.fileno())
        return statistics.median(took) * 1e3, len(large) / (monotonic_s() - begun_s)


def _about_clock() -> Iterator[Finding]:
    status = _clock_status()
    if status is None:
        return
    if status & _UNSYNCHRONISED:
        said = "the kernel does not know it to be synchronised"
        yield Finding("clock", "poor", said, "Times of runs may be off: have NTP (chrony, systemd-timesyncd) run.")
    else:
        yield Finding("clock", "ok", "synchronised")


def _clock_status() -> int | None:
    """The kernel's `status` of its clock, from adjtimex; None where there is none."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return None
    record = (ctypes.c_long * 64)()  # struct timex, asked for (modes = 0) and not set
    if adjtimex(record) < 0:
        return None
    return int(ctypes.cast(record, ctypes.POINTER(ctypes.c_int))[5 * ctypes.sizeof(ctypes.c_long) // 4])


def _about_system() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES and hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        yield Finding("open files", "poor", f"at most {soft}", "Raise it: ulimit -n 4096, or LimitNOFILE in systemd.")
    else:
        yield Finding("open files", "ok", f"at most {soft}")
    labs = running_labs()
    yield Finding("running labs", "ok" if labs else "none", ", ".join(labs) or "none")


def _about_ports(lab: LabDefinition) -> Iterator[Finding]:
    for port in lab.ports:
        what = f"port {port.name}"
        if port.serial is not None:
            yield _about_serial(what, port.serial, lab.name)
        elif port.tcp is not None:
            yield _reached(what, port, lab.name)
        else:
            yield Finding(what, "none", "is behind a VISA library; duodaq run opens it")


def _about_serial(what: str, serial: dict[str, Any], lab: str) -> Finding:
    if serial.get("usb"):
        identity = UsbIdentity(serial["usb"], serial.get("location"), serial.get("interface"))
        try:
            tty = identity.find(usb_ttys())
        except PortOpenError as error:
            return Finding(what, "broken", str(error))
        return _permitted(what, tty.device, str(tty), [lab])
    return _permitted(what, str(serial["path"]), str(serial["path"]), [lab])


def _reached(what: str, port: PortDefinition, lab: str) -> Finding:
    """Whether a TCP port accepts; it is connected to for a moment, unless a lab runs that may hold it."""
    host, _, number = str(port.tcp).rpartition(":")
    host = host.strip("[]")
    if holders := programs_connected(host, int(number)):
        if (by_lab := _held_by([lab], holders)) is not None:
            return Finding(what, "ok", f"{port.tcp}: {by_lab}")
        said = f"{port.tcp}: {_listed(holders)} is connected to it"
        return Finding(what, "poor", said, "An instrument of one client only does not let a lab in before that ends.")
    if running_labs():
        return Finding(what, "none", f"{port.tcp} is not tried while a lab runs: many instruments have one client only")
    try:
        socket.create_connection((host, int(number)), timeout=_REACH_S).close()
    except OSError as error:
        said = f"{port.tcp} does not answer: {error.strerror or error}"
        return Finding(what, "broken", said, "Is it on, and on this network?")
    return Finding(what, "ok", f"{port.tcp} answers")
