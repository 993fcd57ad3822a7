"""The commands about recorded runs. Each loads what does the work only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from duodaq.cli import _completion as completion
from duodaq.cli._console import Said
from duodaq.cli._options import AsJson

RunsDirectory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the runs lie.")]
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run: its directory, its number, or `last`.", autocompletion=completion.runs),
]
Words = Annotated[list[str] | None, typer.Argument(metavar="[FILTER]...", help="Words, or sample=, tag=, since= …")]


class _RunsGroup(TyperGroup):
    """A group whose words are a filter unless the first of them is a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["list", *args]
        return super().resolve_command(ctx, args)


runs = typer.Typer(cls=_RunsGroup, invoke_without_command=True, subcommand_metavar="[FILTER]... | COMMAND")


@runs.callback()
def show_runs(context: typer.Context, directory: RunsDirectory = Path("runs"), as_json: AsJson = False) -> None:
    """List recorded runs. FILTER: words of their labels, or sample=, operator=, tag=, since=, until=, state=, log=."""
    context.obj = (directory, as_json)
    if context.invoked_subcommand is None:
        from duodaq.cli._runs import list_runs

        list_runs([], directory, Said(), as_json=as_json)


@runs.command("list")
def list_some(
    context: typer.Context, words: Words = None, directory: RunsDirectory = Path("runs"), as_json: AsJson = False
) -> None:
    """List recorded runs, as `duodaq runs` does without a command."""
    from duodaq.cli._runs import list_runs

    list_runs(words or [], _directory(context, directory), Said(), as_json=as_json or context.obj[1])


@runs.command()
def show(
    context: typer.Context, run: RunName, directory: RunsDirectory = Path("runs"), as_json: AsJson = False
) -> None:
    """Show one run: its streams, its labels, its times."""
    from duodaq.cli._runs import show_run

    show_run(run, _directory(context, directory), Said(), as_json=as_json or context.obj[1])


@runs.command()
def label(
    context: typer.Context,
    run: RunName,
    sample: Annotated[str | None, typer.Option("--sample", help="What was measured.")] = None,
    operator: Annotated[str | None, typer.Option("--operator", help="Who measured.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="Free text.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Several may be given; they replace all.")] = None,
    directory: RunsDirectory = Path("runs"),
) -> None:
    """Say what a run was; what is not given stays as it is."""
    from duodaq.cli._runs import label_run

    label_run(run, _directory(context, directory), Said(), sample, operator, note, tag or [])


@runs.command()
def diff(
    context: typer.Context,
    one: RunName,
    other: RunName,
    directory: RunsDirectory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say in which labels, settings, versions and streams two runs differ. Ends with 1 if they do."""
    from duodaq.cli._runs import show_differences

    place = _directory(context, directory)
    raise typer.Exit(show_differences(one, other, place, Said(), as_json=as_json or context.obj[1]))


def _directory(context: typer.Context, directory: Path) -> Path:
    """Where runs lie: as said behind the command, or else before it."""
    return directory if directory != Path("runs") else context.obj[0]
