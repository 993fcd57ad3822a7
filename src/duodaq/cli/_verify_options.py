"""What ``duodaq verify`` may be asked, in a file of its own: the file of all commands is long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from duodaq.cli import _completion as completion
from duodaq.cli._options import AsJson


def verify_here(
    mode: Annotated[
        list[str] | None, typer.Option("--mode", metavar="MODE", help="inline, thread or process; or several. All.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option("--test", metavar="NAME", help="Only this test; may be given more than once.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the pages go: coexistence, unless --check.")
    ] = None,
    no_coverage: Annotated[
        bool, typer.Option("--no-coverage", help="Measure no branch coverage: half the time.")
    ] = False,
    sabotage: Annotated[
        str, typer.Option("--sabotage", metavar="NAME", help="Break duodaq on purpose, to see a test fail.")
    ] = "",
    compare_with: Annotated[
        Path | None,
        typer.Option("--check", metavar="DIR", help="Say whether the pages there say the same, apart from times."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", help="Run nothing: take what pytest's run has left there."),
    ] = None,
    hardware: Annotated[
        Path | None,
        typer.Option(
            "--hardware",
            metavar="LAB.toml",
            help="On the instruments of this lab; read only.",
            autocompletion=completion.lab_files,
        ),
    ] = None,
    allow_motion: Annotated[
        bool, typer.Option("--allow-motion", help="Of real instruments: small moves within the limits, and back.")
    ] = False,
    load: Annotated[str, typer.Option("--load", metavar="TIME", help="How long the load test takes.")] = "5 s",
    as_json: AsJson = False,
) -> None:
    """Run the coexistence tests on this machine, and write four pages of them. Ends with 1 if one fails."""
    from duodaq.cli._app import err, out
    from duodaq.cli._verify import Asked, verify

    chosen = (tuple(mode or ()), tuple(test or ()), directory)
    more = (compare_with, results, hardware, allow_motion, load, as_json)
    raise typer.Exit(verify(Asked(*chosen, not no_coverage, sabotage, *more), out, err))
