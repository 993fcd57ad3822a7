"""`duodaq migrate`: one instrument from V2 to V4 on a running lab, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

migrate = typer.Typer(no_args_is_help=True, help="Move one instrument from V2 to V4, on a running lab, and back.")
out = Console(highlight=False)

LabFile = Annotated[Path, typer.Argument(metavar="LAB.toml", help="The lab file.", readable=False)]
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
