"""``duodaq stop-all``: the stop is on its way before anything is loaded that reads options or paints words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from duodaq.app import running_labs, stop_all_of
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, PortError

if TYPE_CHECKING:
    from rich.console import Console


class Plain(NamedTuple):
    """What was asked for, in the words that need no parser."""

    lab: str | None
    as_json: bool


def in_plain_words(words: Sequence[str]) -> Plain | None:
    """What ``duodaq stop-all [--lab NAME] [--json]`` asks for; None for all else, which the parser reads."""
    left, lab, as_json = [*words], None, False
    if "_DUODAQ_COMPLETE" in os.environ or left[:1] != ["stop-all"]:
        return None
    del left[0]
    while left:
        word = left.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--lab" and left and not left[0].startswith("-"):
            lab = left.pop(0)
        else:
            return None
    return Plain(lab, as_json)


def stop_now(asked: Plain) -> int:
    """Stop, and then say what came of it; the exit code."""
    try:
        stops = _stop(asked.lab)
        from duodaq.cli._console import Said

        return _say(stops, Said(), as_json=asked.as_json)
    except DuodaqError as error:
        _tell(f"duodaq: {error}")
        return 2 if isinstance(error, ConfigError | PortError | LifecycleError) else 1
    except KeyboardInterrupt:
        return 130


def order_stop_all(lab: str | None, out: Console, *, reset: bool, as_json: bool) -> int:
    """Stop all, in every running lab if none is named, or lift the latch of one; the exit code."""
    return _lift(lab, out, as_json=as_json) if reset else _say(_stop(lab), out, as_json=as_json)


def _lift(lab: str | None, out: Console, *, as_json: bool) -> int:
    from duodaq.app import connect, user_name
    from duodaq.cli._console import say_json

    with connect(lab) as client:
        status = client.status()
        was_latched = status["latched"]
        client.reset_stop(user_name())
    if as_json:
        say_json(out, {"lab": status["lab"], "was_latched": was_latched, "latched": False})
        return 0
    out.print("The latch is lifted: moves are accepted again." if was_latched else "No stop was latched.")
    return 0


class _Stops(NamedTuple):
    reports: dict[str, dict[str, Any]]
    failures: dict[str, str]


def _stop(lab: str | None) -> _Stops:
    """Labs are stopped at the same time, for one that does not answer keeps no other waiting; that it does not is said
    at once, on stderr.
    """
    stops, labs = _Stops({}, {}), meant(lab)
    with ThreadPoolExecutor(len(labs)) as pool:
        asked = {name: pool.submit(stop_all_of, name, _tell) for name in labs}
    for name, answer in asked.items():
        try:
            report = answer.result()
            stops.reports[report.pop("lab")] = report
        except DuodaqError as error:
            if len(labs) == 1:
                raise
            stops.failures[name or "lab"] = str(error)
    return stops


def _tell(said: str) -> None:
    sys.stderr.write(f"{said}\n")


def _say(stops: _Stops, out: Console, *, as_json: bool) -> int:
    reports, failures = stops
    if as_json:
        from duodaq.cli._console import say_json

        say_json(out, _plain(reports, failures))
    else:
        _print_stops(reports, failures, out)
    return 1 if failures or any(report["failures"] for report in reports.values()) else 0


def meant(lab: str | None) -> list[str | None]:
    """The running labs that a command is for: the one that is named, or else all there are."""
    return [lab] if lab is not None else [*running_labs()] or [None]


def _plain(reports: dict[str, dict[str, Any]], failures: dict[str, str]) -> Any:
    if len(reports) == 1 and not failures:
        return next(iter(reports.values()))
    return {**reports, **{name: {"failures": {name: why}} for name, why in failures.items()}}


def _print_stops(reports: dict[str, dict[str, Any]], failures: dict[str, str], out: Console) -> None:
    from rich.markup import escape

    for lab, report in reports.items():
        alone = report["ended"] is None
        waited = "Its watchdog did it alone." if alone else f"{report['ended']} waiting commands ended, not done."
        out.print(f"[bold red]Stopped {escape(lab)}.[/] {waited}")
        did: dict[str, str] = report.get("did", {})
        bare = report["no_fail_safe"]
        for name, what in did.items():
            words = f"  {name}: {what}" + ("; no fail-safe: look there yourself" if name in bare else "")
            out.print(escape(words), style=_style(what, name in bare), soft_wrap=True)
        for port in () if alone or did else report["on_wire_ns"]:
            out.print(escape(f"  {port}: stop is on the wire"))
        for port, told in report.get("watchdog", {}).items():
            said = "stop is on the wire" if "written_ns" in told else told["error"]
            late = "" if alone else ": the manager did not answer at once"
            out.print(escape(f"  {port}: {said}, by the watchdog{late}"))
        for name, why in report["failures"].items():
            if name in did:
                continue
            out.print(f"  [bold red]{escape(f'{name}: {why}')}[/]")
        for name in () if did else bare:
            out.print(f"  [yellow]{escape(name)}: no fail-safe; nothing but its driver could stop it[/]")
        out.print(escape(f"Moves are refused until: duodaq stop-all --reset --lab {lab}"))
    for name, why in failures.items():
        out.print(f"[bold red]{escape(f'{name} was not stopped: {why}')}[/]")


def _style(what: str, is_bare: bool) -> str:
    if what.startswith("NOT stopped"):
        return "bold red"
    return "yellow" if is_bare else ""
