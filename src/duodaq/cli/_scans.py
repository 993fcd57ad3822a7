"""The commands about the scans of a running lab, whoever began them."""

from __future__ import annotations

from typing import Annotated

import typer

from duodaq.cli._console import Said
from duodaq.cli._options import AsJson, LabName

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Which scan.")]

scans = typer.Typer(invoke_without_command=True, help="The scans of a running lab, whoever began them.")


@scans.callback()
def list_scans(context: typer.Context, lab: LabName = None, as_json: AsJson = False) -> None:
    """List the scans under way, and the last that ended."""
    if context.invoked_subcommand is None:
        from duodaq.cli._scan_work import show_scans

        show_scans(lab, Said(), as_json=as_json)


@scans.command()
def pause(number: Number, lab: LabName = None) -> None:
    """Have a scan wait before its next point; what moves arrives."""
    from duodaq.cli._scan_work import steer_scan

    steer_scan(lab, number, "pause", Said())


@scans.command()
def resume(number: Number, lab: LabName = None) -> None:
    """Have it go on."""
    from duodaq.cli._scan_work import steer_scan

    steer_scan(lab, number, "resume", Said())


@scans.command()
def abort(number: Number, lab: LabName = None) -> None:
    """Stop what it moves, at once, and end it; its points are kept."""
    from duodaq.cli._scan_work import steer_scan

    steer_scan(lab, number, "abort", Said())


@scans.command()
def attach(number: Number, lab: LabName = None) -> None:
    """Watch it to its end. Ctrl-C stops it, as one that was begun here; its points are kept. Ends with 1 if it did."""
    from duodaq.cli._scan_work import attach_to_scan

    raise typer.Exit(attach_to_scan(lab, number, Said()))
