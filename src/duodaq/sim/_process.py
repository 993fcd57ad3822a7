"""A simulator as a process: its options, its one line when it is ready, its control line, and its end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from duodaq.errors import PortLostError
from duodaq.sim._endpoint import Endpoint, PtyEndpoint, TcpEndpoint
from duodaq.sim._faults import Faults
from duodaq.sim._registry import NAMES, make_simulator
from duodaq.sim._server import SimServer
from duodaq.sim._simulator import BusInstrument, Line, Simulator
from duodaq.sim.lan import HislipEndpoint, Vxi11Endpoint
from duodaq.sim.table import LocalTable, Table, TableClient

LAN = Line(baud=100_000_000, processing_s=0.0005, max_clients=16)
"""What an instrument has for a line that is served by HiSLIP or VXI-11, whatever is at its back otherwise."""

Operations = dict[str, Callable[..., Any]]


def run_simulator(
    name: str,
    *,
    model: str | None = None,
    endpoint: str = "pty",
    link: str | None = None,
    tcp_port: int = 0,
    table: str | None = None,
    seed: int = 0,
    faults: Sequence[str] = (),
    paced: bool = True,
    label: str | None = None,
    control: bool = False,
) -> int:
    """Serve one simulator until SIGINT or SIGTERM; prints one line of JSON when it is ready.

    Args:
        name: One of `duodaq.sim.NAMES`.
        model: Which model, where there are several.
        endpoint: ``"pty"``, ``"tcp"``, or for SCPI instruments ``"hislip"`` or ``"vxi11"``.
        link: For a pty: a symlink that always names the present device.
        tcp_port: 0 takes any free one; not for a pty.
        table: Address of the optical table's socket; without it the simulator has a small table of its own,
            drawn from `seed`, with the shutter open.
        faults: Words for `Faults.parse`.
        paced: At the line's real speed and with the instrument's own delays.
        label: Under which name its counts are deposited at the table; its own name by default.
        control: Take one JSON request a line on stdin and answer on stdout; end when stdin ends.

    Returns:
        The exit code: 0 after a signal, 1 if the table was lost.

    Raises:
        ValueError: No such simulator, model or fault, or none that can be served there.
        OSError: The address is taken.
    """
    spoil = Faults.parse(*faults)
    bench: Table = TableClient(table) if table else LocalTable(seed, shutter_open=True)
    try:
        simulator = make_simulator(name, model=model, table=bench, seed=seed)
        line = _endpoint(simulator, endpoint, link, tcp_port)
        server = SimServer(simulator, line, table=bench, label=label, paced=paced, faults=spoil, seed=seed)
        return asyncio.run(_serve_simulator(server, control=control))
    finally:
        bench.close()


def _endpoint(simulator: Simulator, kind: str, link: str | None, port: int) -> Endpoint:
    if kind == "pty":
        return PtyEndpoint(link)
    if kind == "tcp":
        return TcpEndpoint(port, max_clients=simulator.line.max_clients)
    if not isinstance(simulator, BusInstrument):
        raise ValueError(f"{simulator.name} is no instrument of IEEE 488: it cannot be served by {kind}")
    simulator.line = LAN
    front_end = {"hislip": HislipEndpoint, "vxi11": Vxi11Endpoint}[kind]
    return front_end(port, max_clients=LAN.max_clients)


async def _serve_simulator(server: SimServer, *, control: bool) -> int:
    stopping = Stopping()
    server.on_table_lost(stopping.fail)
    server.start()
    operations: Operations = {
        "report": server.report,
        "faults": server.set_fault_fields,
        "unplug": server.unplug,
        "replug": server.replug,
        "power_cycle": server.power_cycle,
    }
    try:
        ready = {"instrument": server.simulator.name, "address": server.address}
        return await serve_until_stopped(ready, operations if control else None, stopping)
    finally:
        server.close()


class Stopping:
    """Says when a simulator's process has to end, and with which exit code."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.exit_code = 0

    def fail(self, exc: PortLostError) -> None:
        """End with code 1: there is nothing to simulate without the table."""
        if not self.event.is_set():
            print(f"simulator ends: {exc}", file=sys.stderr, flush=True)  # noqa: T201  a process of its own speaks here
        self.exit_code = 1
        self.event.set()


async def serve_until_stopped(ready: dict[str, Any], operations: Operations | None, stopping: Stopping) -> int:
    """Say that all is ready; then serve the control line, if there is one, until a signal or its end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.event.set)
    say(ready)
    control = None
    if operations is not None:
        control = _Control(operations, stopping)
        loop.add_reader(sys.stdin.fileno(), control.read)
    try:
        await stopping.event.wait()
    finally:
        if control is not None:
            loop.remove_reader(sys.stdin.fileno())
    return stopping.exit_code


class _Control:
    """The control line: one JSON list ``[operation, *arguments]`` a line in, one JSON object a line out."""

    def __init__(self, operations: Operations, stopping: Stopping) -> None:
        self._operations = operations
        self._stopping = stopping
        self._rest = b""

    def read(self) -> None:
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            self._stopping.event.set()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            say(self._answer(line))

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            operation, *arguments = json.loads(line)
            return {"value": self._operations[operation](*arguments)}
        except (ValueError, TypeError, KeyError, OSError) as exc:
            return {"error": f"{type(exc).__name__}: {exc}"}


def say(message: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(message), flush=True)  # noqa: T201  this line is the interface


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m duodaq.sim NAME …``: the exit code; 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m duodaq.sim", description="Serve one simulated instrument.")
    parser.add_argument("name", choices=NAMES)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", action="store_true", help="on a pseudo-terminal (the default)")
    where.add_argument("--tcp", type=int, metavar="PORT", help="on a TCP port of this machine; 0 takes a free one")
    where.add_argument("--hislip", type=int, metavar="PORT", help="by HiSLIP on that port (SCPI instruments)")
    where.add_argument("--vxi11", type=int, metavar="PORT", help="by VXI-11 on that port (SCPI instruments)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--link", metavar="PATH", help="symlink that always names the present pseudo-terminal")
    place.add_argument("--own-folder", action="store_true", help="the same, in a folder that lives as long as it does")
    parser.add_argument("--model", help="which model, where there are several")
    parser.add_argument("--table", metavar="SOCKET", help="the optical table's address")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="e.g. jitter, drop=0.05, stall")
    parser.add_argument("--unpaced", action="store_true", help="answer at once instead of at the line's speed")
    parser.add_argument("--label", help="name under which its counts stand at the table")
    parser.add_argument("--control", action="store_true", help="requests on stdin, answers on stdout")
    given = parser.parse_args(argv)
    try:
        with _folder(given.own_folder) as folder:
            return _run_given(given, given.link if folder is None else str(Path(folder) / given.name))
    except (ValueError, OSError) as exc:
        parser.exit(2, f"{parser.prog}: {exc}\n")


def _folder(wanted: bool) -> contextlib.AbstractContextManager[str | None]:
    if not wanted:
        return contextlib.nullcontext()
    return tempfile.TemporaryDirectory(prefix="duodaq-sim-", ignore_cleanup_errors=True)


def _run_given(given: argparse.Namespace, link: str | None) -> int:
    ports = {"tcp": given.tcp, "hislip": given.hislip, "vxi11": given.vxi11}
    endpoint = next((kind for kind, port in ports.items() if port is not None), "pty")
    return run_simulator(
        given.name,
        model=given.model,
        endpoint=endpoint,
        link=link,
        tcp_port=ports.get(endpoint) or 0,
        table=given.table,
        seed=given.seed,
        faults=given.fault,
        paced=not given.unpaced,
        label=given.label,
        control=given.control,
    )
