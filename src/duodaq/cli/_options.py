"""The arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from duodaq.cli import _completion as completion

# readable=False: what cannot be read is said by the lab file's own reader, with what to do about it
LabFile = Annotated[
    Path, typer.Argument(metavar="LAB.toml", help="The lab file.", readable=False, autocompletion=completion.lab_files)
]
LabName = Annotated[
    str | None,
    typer.Option("--lab", help="Which running lab, if there are several.", autocompletion=completion.labs),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
