from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape

from duodaq.app import AxisHandle, InstrumentHandle, LabClient, ScanHandle, connect
from duodaq.bluesky import ScanRun
from duodaq.cli._console import say_json_line
from duodaq.errors import ConfigError, ScanInterruptedError
from duodaq.units import parse_duration_s


@dataclass(frozen=True)
class Wanted:
    """A scan as it was asked for."""

    axis: str
    start: float
    stop: float
    points: int
    read: tuple[str, ...]
    settle: str
    labels: dict[str, Any]
    detach: bool = False


def scan_lab(lab: str | None, wanted: Wanted, out: Console, *, as_json: bool) -> int:
    """Scan, and say where the points are; the exit code: 1 if it ended before its last point.

    A detached scan is only begun.

    Raises:
        ConfigError: There is no such axis or instrument, or the time is none. Nothing moved.
        OutOfRangeError: A position is beyond the limits. Nothing moved.
    """
    settle_s = _seconds(wanted.settle)
    with connect(lab) as client:
        axis, read = _axis(client, wanted.axis), [_instrument(client, name) for name in wanted.read]
        positions = [float(position) for position in np.linspace(wanted.start, wanted.stop, wanted.points)]

        def tell(name: str, document: dict[str, Any]) -> None:
            if as_json and name == "event":
                say_json_line(out, {"point": document["seq_num"], **_scalars(document["data"])})

        labels = {name: value for name, value in wanted.labels.items() if value}
        if wanted.detach:
            _say_begun(client.scan(axis, positions, read, settle_s=settle_s, detach=True, **labels), out, as_json)
            return 0
        why, shown = "", not as_json and out.is_terminal
        try:
            run = client.scan(
                axis, positions, read, settle_s=settle_s, progress=shown, on_document=tell, detach=False, **labels
            )
        except ScanInterruptedError as error:
            run, why = cast("ScanRun", error.run), error.what
    _say(run, why, out, as_json=as_json)
    return 1 if why else 0


def _say_begun(scan: ScanHandle, out: Console, as_json: bool) -> None:
    if as_json:
        say_json_line(out, msgspec.to_builtins(scan.status()))
        return
    number = scan.number
    out.print(f"Scan {number} has begun; the lab goes on with it. duodaq scans; duodaq scans attach {number}; … abort")


def _say(run: ScanRun, why: str, out: Console, *, as_json: bool) -> None:
    place = None if run.directory is None else str(run.directory)
    if as_json:
        facts = {"uid": run.uid, "points": len(run), "complete": run.complete, "directory": place}
        say_json_line(out, {**facts, "error": why} if why else facts)
        return
    if why:
        out.print(f"[bold red]The scan {escape(why)}[/]", soft_wrap=True)
    ends = [f"{name} {_span(run, name)}" for name in run.fields() if run[name].ndim == 1 and "setpoint" not in name]
    for line in ends if len(run) else ():
        out.print(escape(f"  {line}"))
    out.print(escape(f"{len(run)} of {run.planned} points" + (f" are in {place}" if place else "")), soft_wrap=True)


def _span(run: ScanRun, name: str) -> str:
    values, unit = run[name].astype(float), run.units.get(name, "")
    return f"{np.nanmin(values):g} … {np.nanmax(values):g} {unit}".rstrip()


def _scalars(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if isinstance(value, str | int | float)}


def _axis(client: LabClient, name: str) -> AxisHandle:
    instrument, dot, axis = name.partition(".")
    found = _instrument(client, instrument)
    if not dot or axis not in found.axes:
        names = ", ".join(f"{instrument}.{one}" for one in found.axes) or "none; `axes` in its stanza names them"
        raise ConfigError(f"{name!r} is no axis", key="AXIS", remedy=f"The axes of {instrument} are: {names}")
    return found.axes[axis]


def _instrument(client: LabClient, name: str) -> InstrumentHandle:
    try:
        return client[name]
    except KeyError:
        known = ", ".join(one.id for one in client)
        raise ConfigError(f"no instrument {name!r}", key="INSTRUMENT", remedy=f"There are: {known}") from None


def _seconds(text: str) -> float:
    try:
        return parse_duration_s(text) or 0.0
    except ValueError as error:
        raise ConfigError(str(error), key="--settle") from error
