"""`duodaq migrate`: one instrument from V2 to V4 on a running lab, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from duodaq.cli import _completion as completion
from duodaq.cli._console import Said
from duodaq.cli._options import AsJson, LabFile, LabName

migrate = typer.Typer(no_args_is_help=True, help="Move one instrument from V2 to V4, on a running lab, and back.")
out = Said()

Only = Annotated[list[str] | None, typer.Option("--only", metavar="ID", help="Which instrument; may be repeated.")]
Drivers = Annotated[
    list[str] | None, typer.Option("--driver", metavar="ID=CLASS", help="Another V4 driver than duodaq would choose.")
]


@migrate.command()
def convert(
    file: LabFile,
    only: Only = None,
    driver: Drivers = None,
    back: Annotated[bool, typer.Option("--back", help="Turn stanzas back, exactly as they were in V2.")] = False,
    target: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to another file.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the lab file itself.")] = False,
) -> None:
    """Turn V2 stanzas of a lab file into V4 ones, show what changes, and say what could not be turned. Without --write
    or --out nothing is written.
    """
    from duodaq.cli._convert import Asked, convert_file

    raise typer.Exit(convert_file(Asked(file, only, driver, back, target, write), out))


Instrument = Annotated[str, typer.Argument(metavar="ID", help="The instrument.", autocompletion=completion.instruments)]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who says so; you, by default.")]
Write = Annotated[bool, typer.Option("--write", help="Have the lab file say so, for the next start.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report there: .md or .json.")]


@migrate.command()
def status(
    instrument: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="With its checklist and its log.", autocompletion=completion.instruments),
    ] = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Say where each instrument of a running lab is, and what its checklist lacks."""
    from duodaq.cli._moving import show_status

    raise typer.Exit(show_status(lab, instrument, out, as_json=as_json))


@migrate.command()
def shadow(
    instrument: Instrument,
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long; Ctrl-C ends it early.")] = "60 s",
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FILE", help="A recorded wire log, and no running lab.")
    ] = None,
    file: Annotated[
        Path,
        typer.Option(
            "--file", metavar="LAB.toml", help="The lab file, with --replay.", autocompletion=completion.lab_files
        ),
    ] = Path("lab.toml"),
    report: Report = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Run the V4 driver beside V2 without touching the wire, and say what differs. Ends with 1 if anything does."""
    from duodaq.cli._moving import replay_shadow, run_shadow

    if replay is not None:
        raise typer.Exit(replay_shadow(replay, file, instrument, report, out, as_json=as_json))
    raise typer.Exit(run_shadow(lab, instrument, lasts, report, out, as_json=as_json))


@migrate.command()
def tick(
    instrument: Instrument,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="contract, 'safe state', stop, config or docs.")],
    by: By = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Answer for a line of the checklist that cannot be computed, by name."""
    from duodaq.cli._moving import tick as answer_for

    raise typer.Exit(answer_for(lab, instrument, item, by, out, as_json=as_json))


@migrate.command()
def cutover(
    instrument: Instrument,
    force: Annotated[bool, typer.Option("--force", help="Although its checklist is not met; logged by name.")] = False,
    write: Write = False,
    by: By = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Move an instrument from V2 to V4. Ends with 1 if it was refused or undone, and says which runtime has it."""
    from duodaq.cli._moving import move

    raise typer.Exit(move(lab, instrument, "cutover", out, as_json=as_json, by=by, force=force, write=write))


@migrate.command()
def rollback(
    instrument: Instrument,
    why: Annotated[str, typer.Option("--why", help="What is noted.")] = "",
    write: Write = False,
    by: By = None,
    lab: LabName = None,
    as_json: AsJson = False,
) -> None:
    """Move an instrument back from V4 to V2."""
    from duodaq.cli._moving import move

    raise typer.Exit(move(lab, instrument, "rollback", out, as_json=as_json, by=by, why=why, write=write))
