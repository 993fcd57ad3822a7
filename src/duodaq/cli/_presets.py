"""The commands about presets of settings."""

from __future__ import annotations

from typing import Annotated

import typer

from duodaq.cli._console import Said
from duodaq.cli._options import AsJson, LabName

presets = typer.Typer(no_args_is_help=True, help="Named presets of a running lab's settings.")
PresetName = Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="INSTRUMENT", help="Only this one; may be repeated.")]


@presets.command("list")
def list_presets(lab: LabName = None, as_json: AsJson = False) -> None:
    """List them: when each was saved, by whom, and what it is about."""
    from duodaq.cli._preset_work import list_presets as listed

    listed(lab, Said(), as_json=as_json)


@presets.command("save")
def save_preset(
    name: PresetName,
    only: Only = None,
    note: Annotated[str, typer.Option("--note", help="A word about it.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of one of that name.")] = False,
    lab: LabName = None,
) -> None:
    """Read every setting from its device and keep it, in the folder `presets` beside the lab file."""
    from duodaq.cli._preset_work import save_preset as save

    save(lab, name, only or [], note, Said(), replace=replace)


@presets.command("diff")
def diff_preset(
    name: PresetName,
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="Another preset, instead of now.")] = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Show what loading it would change: value now, value then. Ends with 1 if there is anything."""
    from duodaq.cli._preset_work import show_preset_diff

    raise typer.Exit(show_preset_diff(lab, [name, *([other] if other else [])], Said(), as_json=as_json))


@presets.command("load")
def load_preset(
    name: PresetName,
    only: Only = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Set it without asking.")] = False,
    lab: LabName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; with --yes.")] = False,
) -> None:
    """Show what it changes, and set it: all of it or, if anything is beyond its limits, nothing.

    What may arm, open, switch on or move something is left to a person, with the reason, unless the lab file allows it.
    Where nobody can be asked, nothing is set without --yes.
    """
    from duodaq.cli._preset_work import load_preset as load

    raise typer.Exit(load(lab, name, only or [], Said(), yes=yes, as_json=as_json))
