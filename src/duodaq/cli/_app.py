"""The commands. Each is a thin shell around the package that does the work, and loads it only when called.

Exit codes: 0 done · 1 it went wrong while running · 2 something is wrong in what was asked or in the lab file; nothing
was started.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from duodaq.cli import _completion as completion
from duodaq.cli._console import OTHER_LETTERS, Said
from duodaq.cli._migrate import migrate as moves
from duodaq.cli._options import AsJson, LabFile, LabName
from duodaq.cli._presets import presets
from duodaq.cli._run_commands import RunName, RunsDirectory, runs
from duodaq.cli._scans import scans
from duodaq.cli._verify_options import verify_here
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, PortError


class _Commands(TyperGroup):
    """Their help breaks its lines where the terminal does, and not where the source does."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        _unwrap(self)


def _unwrap(group: TyperGroup) -> None:
    for command in group.commands.values():
        command.help = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
        if isinstance(command, TyperGroup):
            _unwrap(command)


app = typer.Typer(
    name="duodaq",
    cls=_Commands,
    help="Two instrument runtimes side by side over one set of laboratory hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Said()
err = Said(stderr=True)

BEGIN, LAB, RUNS, SIM = "To begin with", "A running lab", "Recorded runs", "Instruments that are not there"

FAILED = 1
WRONG = 2

WebPort = Annotated[
    int | None, typer.Option("--web-port", metavar="PORT", min=0, max=65535, help="Where the page is; 0 for any.")
]
NoWeb = Annotated[bool, typer.Option("--no-web", help="Serve no page.")]


def _web(port: int | None, no_web: bool) -> int | bool:
    return not no_web if port is None or no_web else port


@app.command(rich_help_panel=BEGIN)
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="No progress bar and no colours.")] = False,
    points: Annotated[int, typer.Option("--points", min=11, help="Points of the knife-edge scan.")] = 41,
    directory: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the recording goes.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulated table.")] = 1,
    unplug_at: Annotated[
        int | None,
        typer.Option("--unplug-at", metavar="POINT", min=1, help="Pull the power meter's cable at this point."),
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Go on behind the scan, for the page, until Ctrl-C.")] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Move the power meter to V4 and back in the middle of the scan.")
    ] = False,
    web_port: WebPort = None,
    no_web: NoWeb = False,
) -> None:
    """Show all of it without hardware: two runtimes, simulated instruments, a scan, a recording, a page."""
    from duodaq.cli.demo._demo import run_demo

    web = _web(web_port, no_web)
    code = run_demo(
        headless=headless,
        points=points,
        directory=directory,
        seed=seed,
        unplug_at=unplug_at,
        stay=stay,
        web=web,
        migrate=migrate,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=LAB)
def run(file: LabFile, web_port: WebPort = None, no_web: NoWeb = False) -> None:
    """Run a lab, with its page, until Ctrl-C, which stops it in order; a second Ctrl-C makes that faster."""
    from duodaq.cli._run import run_lab

    raise typer.Exit(run_lab(file, out, err, web=_web(web_port, no_web)))


@app.command(rich_help_panel=BEGIN)
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The lab file to write.")] = Path("lab.toml"),
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="KIND=WHERE",
            help="An instrument and its port, such as esp300=/dev/ttyUSB0.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    kinds: Annotated[bool, typer.Option("--kinds", help="List the kinds of instrument there are, and end.")] = False,
) -> None:
    """Write a lab file with comments, from the ports that are found and the instruments you choose. Opens no port.

    Without --add, and at a terminal, it asks what is at each port. WHERE is a serial device, HOST:PORT, or a VISA
    resource name; own=./chopper.py:Chopper@/dev/ttyUSB3 hosts a class of yours.
    """
    from duodaq.cli._init import init_lab, show_kinds

    if kinds:
        show_kinds(out)
    else:
        init_lab(file, add or [], out)


@app.command(rich_help_panel=BEGIN)
def doctor(
    lab: Annotated[
        Path | None,
        typer.Argument(metavar="LAB.toml", help="Look at its ports, too.", autocompletion=completion.lab_files),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, permitted and reachable, how fast the disk is, and what to do about it. Ends with 1 if
    something stands in the way. Opens no port.
    """
    from duodaq.cli._doctor import examine

    raise typer.Exit(examine(lab, out, as_json=as_json))


@app.command(rich_help_panel=LAB)
def scan(
    axis: Annotated[
        str,
        typer.Argument(
            metavar="AXIS", help="Which axis: INSTRUMENT.AXIS, such as stage.x.", autocompletion=completion.axes
        ),
    ],
    start: Annotated[float, typer.Argument(metavar="START", help="The first position, in the axis's unit.")],
    stop: Annotated[float, typer.Argument(metavar="STOP", help="The last one.")],
    points: Annotated[int, typer.Argument(metavar="POINTS", min=1, help="How many, evenly spaced.")],
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read",
            metavar="INSTRUMENT",
            help="What is read at each; may be repeated.",
            autocompletion=completion.instruments,
        ),
    ] = None,
    settle: Annotated[str, typer.Option("--settle", metavar="TIME", help="How long to wait after each move.")] = "0 s",
    sample: Annotated[str | None, typer.Option("--sample", help="What is measured.")] = None,
    operator: Annotated[str | None, typer.Option("--operator", help="Who measures.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="Free text.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Begin it and leave; the lab goes on with it.")] = False,
    lab: LabName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one line of JSON a point, and one at the end.")
    ] = False,
) -> None:
    """Scan an axis of a running lab; the lab records it. Ctrl-C stops the axis and keeps the points."""
    from duodaq.cli._scan import Wanted, scan_lab

    labels = {"sample": sample, "operator": operator, "note": note, "tags": tag}
    wanted = Wanted(axis, start, stop, points, tuple(read or ()), settle, labels, detach)
    raise typer.Exit(scan_lab(lab, wanted, out, as_json=as_json))


@app.command(rich_help_panel=BEGIN)
def check(file: LabFile, as_json: AsJson = False) -> None:
    """Say what a lab file describes, what is wrong with it, and what it would change. Touches no hardware."""
    from duodaq.cli._check import check_lab

    check_lab(file, out, as_json=as_json)


@app.command(rich_help_panel=LAB)
def apply(
    file: LabFile,
    lab: LabName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; with --yes or --dry-run.")] = False,
) -> None:
    """Make a running lab what its lab file says now: show what would change, ask, and change that alone.

    Whatever fails is put back as it was. Ends with 1 if the lab is not all that the file says then.
    """
    from duodaq.cli._apply import Wish, apply_file

    raise typer.Exit(apply_file(Wish(file, lab, yes, dry_run, as_json), out))


@app.command(rich_help_panel=LAB)
def status(
    lab: LabName = None,
    live: Annotated[
        bool | None, typer.Option("--live/--once", help="Anew each second until Ctrl-C, as at a terminal; or once.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs; with --live, a line of JSON each second.")
    ] = False,
) -> None:
    """Show a running lab: both runtimes, every instrument, port and alarm. At a terminal, live until Ctrl-C."""
    from duodaq.cli._status import show_status

    show_status(lab, out, live=live, as_json=as_json)


@app.command("stop-all", rich_help_panel=LAB)
def stop_all(
    lab: Annotated[
        str | None,
        typer.Option("--lab", help="Only this running lab; every one of yours else.", autocompletion=completion.labs),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Lift the latch of an earlier stop-all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop everything that moves or emits, in every running lab of yours, now, without a question.

    Moves stay refused until --reset.
    """
    from duodaq.cli._stop_all import order_stop_all

    raise typer.Exit(order_stop_all(lab, out, reset=reset, as_json=as_json))


@app.command(rich_help_panel=LAB)
def alarms(
    lab: LabName = None,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(
            "--acknowledge", metavar="ALARM", help="Say that you know of it.", autocompletion=completion.alarms
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the alarms of a running lab. Ends with 1 if any waits to be acknowledged."""
    from duodaq.cli._alarms import show_alarms

    raise typer.Exit(show_alarms(lab, acknowledge or [], out, as_json=as_json))


app.add_typer(presets, name="presets", rich_help_panel=LAB)
app.add_typer(scans, name="scans", rich_help_panel=LAB)

ports = typer.Typer(invoke_without_command=True)
app.add_typer(ports, name="ports", rich_help_panel=LAB)


@ports.callback()
def show_ports(
    context: typer.Context,
    lab: LabName = None,
    once: Annotated[bool, typer.Option("--once", help="Show them once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one line of JSON each second.")] = False,
) -> None:
    """Show the ports of a running lab live: who holds them, who waits, how busy they are, what went wrong last."""
    if context.invoked_subcommand is None:
        from duodaq.cli._ports import show_ports

        show_ports(lab, out, once=once, as_json=as_json)


@ports.command()
def tail(
    port: Annotated[
        str,
        typer.Argument(
            metavar="PORT", help="Which port, by its name in the lab file.", autocompletion=completion.ports
        ),
    ],
    lab: LabName = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="WIRELOG", help="Show a recorded wire log instead of a live line.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=0, help="Begin with the last N records: 20; of a file, with all."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show what there is, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one line of JSON for each record.")] = False,
) -> None:
    """Show what passes a port, as a protocol analyser does, until Ctrl-C: who says what to whom, and what it means."""
    from duodaq.cli._tail import tail_port

    tail_port(port, lab, file, out, last=last, once=once, as_json=as_json)


@ports.command()
def record(
    file: Annotated[Path, typer.Argument(metavar="WIRELOG", help="The file, which must not exist.")],
    lab: LabName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one line of JSON at the beginning, and one at the end.")
    ] = False,
) -> None:
    """Record all that passes the ports of a running lab into a file, until Ctrl-C. Ends with 1 if any is missing."""
    from duodaq.cli._ports import record_wire

    raise typer.Exit(record_wire(lab, file, out, as_json=as_json))


@app.command(rich_help_panel=SIM)
def sim(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Which instrument: one of the names above.", autocompletion=completion.simulators
        ),
    ],
    pty: Annotated[bool, typer.Option("--pty", help="Serve on a pseudo terminal (the default).")] = False,
    tcp: Annotated[
        int | None, typer.Option("--tcp", metavar="PORT", min=0, max=65535, help="Serve on a TCP port; 0 for any.")
    ] = None,
    hislip: Annotated[
        int | None, typer.Option("--hislip", metavar="PORT", min=0, max=65535, help="SCPI instruments: by HiSLIP.")
    ] = None,
    vxi11: Annotated[
        int | None, typer.Option("--vxi11", metavar="PORT", min=0, max=65535, help="SCPI instruments: by VXI-11.")
    ] = None,
    link: Annotated[Path | None, typer.Option("--link", help="A stable name for the pseudo terminal.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, where there are several.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of noise and of the private table.")] = 0,
    table: Annotated[str | None, typer.Option("--table", metavar="SOCKET", help="Join this optical table.")] = None,
) -> None:
    """Serve a simulated instrument that speaks its real protocol, until Ctrl-C.

    Names: ell14, esp300, maitai, newport1830c, scpi-dmm (models 34401A, 34465A), scpi-psu (models E36312A, E3631A),
    scpi-scope, shutter. Prints one line of JSON when ready.
    """
    from duodaq.cli._sim import serve_simulator

    ports = {"tcp": tcp, "hislip": hislip, "vxi11": vxi11}
    raise typer.Exit(serve_simulator(name, pty=pty, ports=ports, link=link, model=model, seed=seed, table=table))


@app.command(rich_help_panel=SIM)
def replay(
    wirelog: Annotated[Path, typer.Argument(metavar="WIRELOG", help="The wire log, or the folder of its recording.")],
    port: Annotated[
        list[str] | None, typer.Option("--port", metavar="NAME", help="Only this port; may be given more than once.")
    ] = None,
    pty: Annotated[bool, typer.Option("--pty", help="Serve on pseudo terminals.")] = False,
    link: Annotated[
        Path | None, typer.Option("--link", metavar="PATH", help="A stable name; for several ports, a folder of them.")
    ] = None,
    tcp: Annotated[
        int | None, typer.Option("--tcp", metavar="PORT", min=0, max=65535, help="Serve on TCP; 0 for any free port.")
    ] = None,
    speed: Annotated[str, typer.Option("--speed", help="1 keeps the recorded times; 10, or max.")] = "1",
    unknown: Annotated[
        str, typer.Option("--unknown", metavar="POLICY", help="silent, error=TEXT, nearest or stop.")
    ] = "silent",
    at_end: Annotated[str, typer.Option("--at-end", metavar="POLICY", help="repeat or cycle.")] = "repeat",
    in_order: Annotated[bool, typer.Option("--in-order", help="Polls' readings in their order, too.")] = False,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="FAULT", help="jitter, drop=0.05, stall …")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the faults.")] = 0,
) -> None:
    """Serve a recorded instrument, until Ctrl-C: replies by content and state. Prints one line of JSON when ready."""
    from duodaq.cli._replay import Asked, serve_replay

    asked = Asked(
        wirelog, tuple(port or ()), pty, link, tcp, speed, unknown, at_end, in_order, tuple(fault or ()), seed
    )
    raise typer.Exit(serve_replay(asked))


@app.command("record", rich_help_panel=LAB)
def record_log(
    channels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHANNEL",
            help="Which ones: dmm.voltage, 'room.*'; all if none is named.",
            autocompletion=completion.channels,
        ),
    ] = None,
    lab: LabName = None,
    name: Annotated[
        str, typer.Option("--name", help="What its runs are called; `duodaq runs log=NAME` finds them.")
    ] = ("log"),
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where they lie; by default where the lab's are.")
    ] = None,
    rotate: Annotated[
        str,
        typer.Option(
            "--rotate", metavar="WHEN", help="How often a new run begins: daily, hourly, weekly (UTC), or a time: 6h."
        ),
    ] = "never",
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="TIME", help="Remove ended runs older than this: 90d.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="SIZE", help="Remove the oldest beyond this: 50GB.")
    ] = None,
    forms: Annotated[
        list[str] | None, typer.Option("--to", metavar="FORMAT", help="What each ended run is turned into: parquet.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Begin it and leave; the lab goes on with it.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the log of this name.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one line of JSON for each run begun, and one at the end.")
    ] = False,
) -> None:
    """Have a running lab record until Ctrl-C, beside whatever else it records; for weeks, if asked to.

    With --keep or --budget, old runs are removed: only ended ones of this name that were read back and found whole, and
    none that is tagged `keep`.
    """
    from duodaq.cli._record import record_log as record
    from duodaq.cli._record import stop_log

    if stop:
        raise typer.Exit(stop_log(name, lab, out, as_json=as_json))
    asked: dict[str, Any] = {"name": name, "directory": directory, "rotate": rotate, "keep": keep, "budget": budget}
    asked |= {"forms": forms or ["parquet"], "detach": detach, "as_json": as_json}
    raise typer.Exit(record(channels or [], lab, out, **asked))


@app.command(rich_help_panel=LAB)
def serve(
    flight: Annotated[bool, typer.Option("--flight", help="By Arrow Flight, for programs in any language.")] = False,
    lab: LabName = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; beyond this machine only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any free one.")] = 8815,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="DUODAQ_FLIGHT_TOKEN", help="What readers must show.", show_envvar=True),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="PEM", help="A certificate: with TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="PEM", help="Its key.")] = None,
    runs_too: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where recorded runs lie.")] = Path("runs"),
    recorded: Annotated[bool, typer.Option("--recorded", help="Recorded runs only: no lab is needed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready.")] = False,
) -> None:
    """Serve the streams of a running lab, and recorded runs, to other programs, until Ctrl-C."""
    if not flight:
        raise ConfigError("nothing was named to serve by", remedy="Name the one there is: duodaq serve --flight.")
    from duodaq.cli._serve import Asked, serve_flight

    asked = Asked(lab, host, port, token, tls_cert, tls_key, runs_too, recorded, as_json)
    raise typer.Exit(serve_flight(asked, out, err))


app.add_typer(moves, name="migrate", rich_help_panel=LAB)
app.add_typer(runs, name="runs", rich_help_panel=RUNS)


@app.command(rich_help_panel=RUNS)
def export(
    run: RunName,
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="parquet, hdf5, zarr or csv; or several.",
            autocompletion=completion.formats,
        ),
    ],
    target: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="Where to; by default into the run's directory.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option("--frames", metavar="HOW", help="Of hdf5: inside, or without a copy: external, relative."),
    ] = None,
    directory: RunsDirectory = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a run in another form. What was written is read back and compared before it counts."""
    from duodaq.cli._runs import export_run

    raise typer.Exit(export_run(run, to, directory, target, frames, out, as_json=as_json))


@app.command(rich_help_panel=RUNS)
def recover(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A run, or where runs lie.")] = Path("runs"),
    all_too: Annotated[
        bool, typer.Option("--all", help="Check finished runs, too; one is mended only if damaged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Finish what a crash interrupted: keep all that is sound, name what is missing. Ends with 1 if anything is."""
    from duodaq.cli._runs import recover_runs

    raise typer.Exit(recover_runs(directory, out, all_too=all_too, as_json=as_json))


app.command("verify", rich_help_panel=BEGIN)(verify_here)


_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
# typer has click within it, or beside it, and shows this one to nobody
_Misused: Any = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


def main() -> None:
    """The entry point: one clear sentence for whatever goes wrong, and the exit code that goes with it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=OTHER_LETTERS)
    try:
        sys.exit(app(prog_name="duodaq", standalone_mode=False) or 0)
    except _Misused as error:
        _say_misuse(error)
        sys.exit(WRONG)
    except typer.Abort:
        err.print("Nobody answers.")
        sys.exit(FAILED)
    except (ConfigError, PortError, LifecycleError) as error:
        err.print(f"[bold red]duodaq:[/] {_escape(error)}", soft_wrap=True)
        sys.exit(WRONG)
    except DuodaqError as error:
        err.print(f"[bold red]duodaq:[/] {_escape(error)}", soft_wrap=True)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in _NOT_WRITTEN or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what waits is tried once more at the end
        err.print(f"[bold red]duodaq:[/] what it says cannot be written: {error.strerror}", soft_wrap=True)
        sys.exit(FAILED)


def _say_misuse(error: Any) -> None:
    """What is wrong with the words, in a sentence; nothing of a command of which help was shown."""
    said = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        return
    context = getattr(error, "ctx", None)
    more = "duodaq" if context is None else context.command_path
    err.print(f"[bold red]duodaq:[/] {escape(f'{said} — {more} --help says what there is')}", soft_wrap=True)


def _escape(error: DuodaqError) -> str:
    return escape(str(error))
