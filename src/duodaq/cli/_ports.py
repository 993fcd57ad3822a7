from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duodaq.app import LabClient, connect
from duodaq.cli._console import as_it_is, ended_by_signal, say_json_line
from duodaq.cli._report import last_error, plain_table, port_state
from duodaq.clock import block, monotonic_s
from duodaq.errors import DeliveryError

_EVERY_S = 1.0
_SAMPLE_S = 0.5

Ports = list[dict[str, Any]]


def show_ports(lab: str | None, out: Console, *, once: bool, as_json: bool) -> None:
    """Show every port of a running lab, anew each second until Ctrl-C; once, if that is wished or nobody looks."""
    with connect(lab) as client:
        try:
            if once or not (as_json or out.is_terminal):
                _print(_sampled(client, _SAMPLE_S), out, as_json=as_json)
            elif as_json:
                while True:
                    _print(_sampled(client, _EVERY_S), out, as_json=True)
            else:
                _watch(client, out)
        except KeyboardInterrupt:
            return


def record_wire(lab: str | None, file: Path, out: Console, *, as_json: bool) -> int:
    """Record the wire of a running lab into a file until Ctrl-C (or SIGTERM); 1 if anything is missing from it.

    Raises:
        StorageError: The file cannot be made.
        LifecycleError: It is being recorded already, no lab runs, or somebody else has ended it.
    """
    with connect(lab) as client, ended_by_signal() as ended:
        path = client.record_wire(file)
        if as_json:
            say_json_line(out, {"lab": client.name, "path": str(path)})
        else:
            out.print(escape(f"Recording the wire of {client.name} to {path} until Ctrl-C."), soft_wrap=True)
        try:
            while not block(_EVERY_S, ended):
                client.status()  # nobody waits for a lab that is gone
            summary = client.stop_wire()
        except DeliveryError as error:
            why = f"{error.what}; the file ended with it, in order if the lab did"
            if as_json:
                say_json_line(out, {"path": str(path), "error": why})
            else:
                out.print(f"[bold red]{escape(why)}[/]", soft_wrap=True)
            return 1
    sound = not (summary["error"] or summary["lost"])
    if as_json:
        say_json_line(out, summary)
        return 0 if sound else 1
    out.print(escape(f"{summary['records']:,} records in {summary['path']}."), soft_wrap=True)
    if not sound:
        missing = summary["error"] or f"lost: {summary['lost']}"
        out.print(f"[bold red]{escape(f'It is incomplete: {missing}')}[/]", soft_wrap=True)
    return 0 if sound else 1


def _watch(client: LabClient, out: Console) -> None:
    with Live(console=as_it_is(out), auto_refresh=False, screen=False) as live:
        live.update(Group(*_page(_sampled(client, _SAMPLE_S))), refresh=True)
        while True:
            live.update(Group(*_page(_sampled(client, _EVERY_S))), refresh=True)


def _sampled(client: LabClient, over_s: float) -> Ports:
    """Every port now, with how many exchanges a second it made in the last `over_s` seconds."""
    before, begun_s = {p["name"]: p["exchanges"] for p in client.ports()}, monotonic_s()
    block(over_s)
    ports, took_s = client.ports(), monotonic_s() - begun_s
    return [{**p, "exchanges_per_s": (p["exchanges"] - before.get(p["name"], 0)) / took_s} for p in ports]


def _print(ports: Ports, out: Console, *, as_json: bool) -> None:
    if as_json:
        say_json_line(out, ports)
        return
    for part in _page(ports):
        out.print(part)


def _page(ports: Ports) -> list[Table | Text]:
    page: list[Table | Text] = [_table(ports)]
    clients = [(p["name"], client) for p in ports for client in p["clients"]]
    if clients:
        table = plain_table("Programs outside", ("port", "program"), ("exchanges", "waiting"))
        for port, client in clients:
            table.add_row(escape(port), escape(client["name"]), str(client["exchanges"]), str(client["waiting"]))
        page.append(table)
    page += [Text(f"{p['name']}: last error: {last_error(p)}", style="yellow") for p in ports if p["last_error"]]
    page += [Text(f"{p['name']} is {p['address']}") for p in ports if p["address"].startswith("usb ")]
    page += [Text(f"{p['name']}: carried by {p['worker']}") for p in ports if p.get("worker")]
    page += [
        Text(f"{p['name']}: programs outside find it at {' and '.join(p['virtual'])}") for p in ports if p["virtual"]
    ]
    return page


def _table(ports: Ports) -> Table:
    numbers = ("wait", "p99", "ex/s", "total", "errors", "mended")
    table = plain_table("Ports", ("port", "state", "holder"), numbers)
    for p in ports:
        holder = f"{p['holder']} for {_time(p['held_s'])}" if p["holder"] else "–"
        if p["waiting"]:
            holder += f"\nthen {', '.join(p['waiting'][:3])}" + (
                f" and {p['queue'] - 3} more" if p["queue"] > 3 else ""
            )
        table.add_row(
            escape(p["name"]),
            port_state(p["state"]),
            escape(holder),
            _time(p["wait_median_s"]),
            _time(p["wait_p99_s"]),
            f"{p['exchanges_per_s']:,.0f}",
            str(p["exchanges"]),
            str(p["errors"]),
            str(p["resyncs"]),
        )
    return table


def _time(seconds: float) -> str:
    if not seconds:
        return "0"
    return (
        f"{seconds * 1e6:.0f} µs"
        if seconds < 1e-3
        else f"{seconds * 1e3:.0f} ms"
        if seconds < 1
        else f"{seconds:.1f} s"
    )
