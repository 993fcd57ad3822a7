"""`duodaq apply`: what a lab file would change in the running lab, as a person reads it, and the change itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from duodaq.app import connect
from duodaq.cli._console import say_json
from duodaq.config import load_lab
from duodaq.errors import ConfigError, DuodaqError
from duodaq.link import running_labs

_SIGNS = {"add": ("+", "green"), "remove": ("-", "red"), "change": ("~", "yellow"), "restart": ("↻", "cyan")}
_WORDS = {"add": "is new", "remove": "goes", "change": "changes", "restart": "begins anew"}
_DONE = {"add": "is there", "remove": "is gone", "change": "is changed", "restart": "has begun anew"}
_FIRST = ("driver", "port", "tcp", "serial.path", "serial.usb", "visa.resource", "codec", "channel")
NOBODY_TO_ASK = "Say --yes to have it done, or --dry-run to look only"

Plain = dict[str, Any]


class Wish(NamedTuple):
    """How `duodaq apply` was called."""

    file: Path
    lab: str | None
    yes: bool
    dry_run: bool
    as_json: bool


def apply_file(wish: Wish, out: Console) -> int:
    """Show what the file would change, ask, and have it changed; 0 if the lab is all that the file says, else 1.

    Raises:
        ConfigError: Something in the file is wrong, or nobody can be asked. Nothing has changed.
        LifecycleError: That lab is not running. Nothing has changed.
    """
    wanted = load_lab(wish.file)
    with connect(wish.lab or wanted.name) as lab:
        plan = lab.plan(wish.file)
        if not wish.as_json:
            _print_plan(plan, [one.id for one in wanted.instruments], out)
        if wish.dry_run or plan["empty"]:
            if wish.as_json:
                say_json(out, plan)
            return 1 if plan["refused"] else 0
        if not wish.yes and not _is_wanted(wish, out):
            out.print("Nothing has changed.")
            return 1
        with out.status("Changing the lab …") if not wish.as_json and out.is_terminal else contextlib.nullcontext():
            report = lab.apply(wish.file, digest=plan["digest"])
        if wish.as_json:
            say_json(out, report)
        else:
            _print_report(report, out)
        return 0 if report["complete"] else 1


def of_running_lab(file: Path, lab: str) -> str | None:
    """What `duodaq apply` would do, in a sentence, if the lab of this file runs; None if it does not, or cannot say."""
    try:
        if lab not in running_labs():
            return None
        with connect(lab) as client:
            plan = client.plan(file)
    except DuodaqError as error:
        return f"this lab runs, and the file cannot be applied to it: {error}"
    steps = [*(step for unit in plan["units"] for step in unit), *plan["alarms"]]
    said = ", ".join(f"{step['name']} {_WORDS[step['what']]}" for step in steps) or "no instrument changes"
    left = f"; what stays until it is run again: {', '.join(one['key'] for one in plan['refused'])}"
    if plan["empty"] and not plan["refused"]:
        return "this lab runs, and is what the file says"
    return f"this lab runs; duodaq apply {file}: {said}{left if plan['refused'] else ''}"


def _is_wanted(wish: Wish, out: Console) -> bool:
    if wish.as_json or not can_ask(out):
        raise ConfigError("nobody is there to be asked; nothing has changed", remedy=NOBODY_TO_ASK)
    return Confirm.ask("Change it so?", default=False, console=out)


def can_ask(out: Console) -> bool:
    """Whether somebody is there who is asked, and can answer."""
    return sys.stdin.isatty() and out.is_terminal


# ---- the plan --------------------------------------------------------------------------------------------------------


def _print_plan(plan: Plain, instruments: list[str], out: Console) -> None:
    name = escape(plan["lab"])
    if plan["empty"]:
        out.print(f"[bold]{name}[/] is what the file says." if not plan["refused"] else f"[bold]{name}[/]")
    else:
        out.print(f"[bold]{name}[/] would change so:")
    steps = [*(step for unit in plan["units"] for step in unit), *plan["alarms"]]
    for step in steps:
        _print_step(step, out)
    if plan["keys"]:
        _print_line("~", "yellow", Text.assemble(("the lab itself", "bold"), " changes"), out)
        out.print(_keys(plan["keys"]))
    for one in plan["refused"]:
        text = Text.assemble((one["key"], "bold"), f" stays as it is: {one['why']}. {one['remedy']}.")
        _print_line("!", "bold red", text, out)
    for name, why in plan["held"].items():
        _print_line("!", "bold red", Text.assemble((name, "bold"), f": {why}"), out)
    for note in plan["notes"]:
        _print_line("·", "", Text(note), out)
    touched = {step["name"] for step in steps if step["subject"] == "instrument"}
    rest = [one for one in instruments if one not in touched]
    if rest and not plan["empty"]:
        _print_line("=", "dim", Text(f"{', '.join(rest)}: untouched"), out)


def _print_step(step: Plain, out: Console) -> None:
    sign, style = _SIGNS[step["what"]]
    what = f": {step['why']}" if step["why"] else ""
    said = Text.assemble(f"{step['subject']} ", (step["name"], "bold"), f" {_WORDS[step['what']]}{what}")
    _print_line(sign, style, said, out)
    keys = step["keys"]
    if step["what"] != "change":
        keys = [one for one in keys if one["key"] in _FIRST or step["what"] == "add"]
        keys = sorted(keys, key=lambda one: _FIRST.index(one["key"]) if one["key"] in _FIRST else len(_FIRST))
    if keys:
        out.print(_keys(keys))


def _print_line(sign: str, style: str, text: Text, out: Console) -> None:
    """A sign, and beside it a sentence, which stays there when it is long."""
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_column(width=3, justify="right")
    row.add_column(overflow="fold")
    row.add_row(Text(sign, style=style), text)
    out.print(row)


def _keys(keys: list[Plain]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=4)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in keys:
        table.add_row("", Text(one["key"]), _values(one))
    return table


def _values(one: Plain) -> Text:
    before, after = one["before"], one["after"]
    if before is None:
        return Text(after or "", style="green")
    if after is None:
        return Text.assemble((before, "red"), " → not set any more")
    return Text.assemble((before, "red"), " → ", (after, "green"))


# ---- what became of it -----------------------------------------------------------------------------------------------


def _print_report(report: Plain, out: Console) -> None:
    for text, style, sign in _outcomes(report):
        _print_line(sign, style, Text(text), out)
    if report["complete"]:
        out.print("[green]The lab is what the file says.[/]")
    else:
        out.print("[yellow]The lab is not all that the file says; what failed is as it was.[/]")


def _outcomes(report: Plain) -> Iterator[tuple[str, str, str]]:
    whats = {f"{step['subject']} {step['name']}": step["what"] for unit in report["plan"]["units"] for step in unit}
    for unit in report["units"]:
        for subject in unit["subjects"]:
            if unit["done"]:
                yield f"{subject} {_DONE[whats[subject]]}", "green", "✓"
            else:
                yield f"{subject} is as it was", "bold red", "✗"
        if unit["why"]:
            yield unit["why"], "", " "
        for name, how in unit["stands"].items():
            yield f"{name}: {how}", "bold red", "!"
    for name in report["alarms"]:
        yield f"alarm {name} is taken over", "green", "✓"
    for name, why in report["left"].items():
        yield f"alarm {name} is as it was: {why}", "bold red", "✗"
