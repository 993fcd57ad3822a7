"""Recorded instruments as a process: each port at an address of its own, all in one state of the recording."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duodaq.errors import ConfigError, DuodaqError, StorageError
from duodaq.model import WireRecord
from duodaq.schema import WirelogFile, open_wirelog
from duodaq.sim._endpoint import Endpoint, PtyEndpoint, TcpEndpoint
from duodaq.sim._faults import Faults
from duodaq.sim._process import Stopping, say, serve_until_stopped
from duodaq.sim._server import SimServer
from duodaq.sim.replay._instrument import CLIENTS, ReplayedInstrument, UnknownPolicy
from duodaq.sim.replay._matching import AtEnd, Matcher
from duodaq.sim.replay._rebuild import rebuild
from duodaq.sim.replay._unknown import UnknownTeller
from duodaq.sim.table import LocalTable

_SILENT = UnknownPolicy()
_NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed, where, and how.

    Attributes:
        wirelog: The wire log, or the folder of its recording.
        ports: Which of its ports; all of them by default.
        endpoint: ``"pty"`` or ``"tcp"``; by default each port as it was recorded.
        link: A stable name for the pty; with several ports a folder, with a link by each port's name in it.
        tcp_port: 0 takes any that is free; with several ports the first one's, the others' follow it.
        speed: 1 keeps the recorded times, 10 is ten times faster; infinity waits for nothing.
        unknown: What commands get that were never recorded.
        at_end: What a query gets when the recorded answers of its state are used up.
        in_order: Answers of one state strictly in recorded order, instead of actions' before polls'.
        faults: What is done to the replies.
        seed: Of those faults.
    """

    wirelog: Path
    ports: tuple[str, ...] = ()
    endpoint: str | None = None
    link: Path | None = None
    tcp_port: int = 0
    speed: float = 1.0
    unknown: UnknownPolicy = _SILENT
    at_end: AtEnd = "repeat"
    in_order: bool = False
    faults: Faults = _NO_FAULTS
    seed: int = 0

    def run(self, *, control: bool = False) -> int:
        """Serve until SIGINT or SIGTERM; prints one line of JSON when it is ready.

        Args:
            control: Take one JSON request a line on stdin and answer on stdout; end when stdin ends. Without it,
                unknown commands are told on stderr.

        Returns:
            The exit code: 0 after a signal, 1 if an unknown command was to stop it.

        Raises:
            ConfigError: It is no wire log, or has no such port, or nothing to replay. Nothing was served.
            OSError: An address is taken.
        """
        file, records = self._read()
        instruments = self._instruments(file, records)
        self._need_folder(instruments)
        teller = None if control else UnknownTeller(instruments.values())
        table = LocalTable(self.seed, shutter_open=True)
        try:
            servers = {
                port: SimServer(
                    instrument,
                    self._endpoint(file, port, number, several=len(instruments) > 1),
                    table=table,
                    paced=False,
                    faults=self.faults,
                    seed=self.seed + number,
                )
                for number, (port, instrument) in enumerate(instruments.items())
            }
            return asyncio.run(_serve(servers, control=control))
        finally:
            table.close()
            if teller is not None:
                teller.sum_up()

    def _need_folder(self, ports: Collection[str]) -> None:
        link = self.link
        if link is not None and len(ports) > 1 and (link.is_symlink() or link.exists()) and not link.is_dir():
            several = (
                f"{len(ports)} ports are replayed ({', '.join(ports)}), so a folder is wanted here, for a link each"
            )
            raise ConfigError(several, key=f"--link {link}", remedy="Name a folder, or one of the ports with --port.")

    def _read(self) -> tuple[WirelogFile, list[WireRecord]]:
        try:
            file = open_wirelog(self.wirelog)
        except StorageError as error:
            if self.wirelog.is_file() and not self.wirelog.stat().st_size:
                raise ConfigError(f"{self.wirelog} is empty, and so no wire log") from error
            raise ConfigError(str(error), remedy="Name the file wire.arrows or the folder of its recording.") from error
        records = file.records()
        there = list(dict.fromkeys([*file.ports, *(record.port for record in records)]))
        for port in self.ports:
            if port not in there:
                remedy = f"There are: {', '.join(there)}." if there else "There is none at all."
                raise ConfigError(f"the wire log {file.path} has no port {port!r}", key=f"--port {port}", remedy=remedy)
        return file, [record for record in records if not self.ports or record.port in self.ports]

    def _instruments(self, file: WirelogFile, records: list[WireRecord]) -> dict[str, ReplayedInstrument]:
        commands, in_lines = rebuild(records)
        if not commands:
            whose = f" on {', '.join(self.ports)}" if self.ports else ""
            raise ConfigError(f"the wire log {self.wirelog} holds no command{whose}: there is nothing to replay")
        matcher = Matcher(commands, in_order=self.in_order, at_end=self.at_end)
        spoken = {command.port for command in commands}
        in_order = dict.fromkeys([*file.ports, *(command.port for command in commands)])
        return {
            port: ReplayedInstrument(matcher, port, lines=in_lines[port], speed=self.speed, unknown=self.unknown)
            for port in self.ports or in_order
            if port in spoken
        }

    def _endpoint(self, file: WirelogFile, port: str, number: int, *, several: bool) -> Endpoint:
        kind = self.endpoint or _kind(file, port)
        if kind == "tcp":
            return TcpEndpoint(self.tcp_port and self.tcp_port + number, max_clients=CLIENTS)
        if self.link is None:
            return PtyEndpoint()
        return PtyEndpoint(str(self.link / port if several else self.link))


def _kind(file: WirelogFile, port: str) -> str:
    """How the port was reached when it was recorded: a path is a serial line, host:port a socket."""
    address = str(file.ports.get(port, {}).get("address", ""))
    host, _, number = address.rpartition(":")
    return "tcp" if host and number.isdecimal() and "/" not in address else "pty"


async def _serve(servers: dict[str, SimServer], *, control: bool) -> int:
    stopping = Stopping()
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            server.on_table_lost(stopping.fail)
            stack.callback(server.close)
            server.start()
        addresses = {port: server.address for port, server in servers.items()}
        ready = {"instrument": "replay", "address": next(iter(addresses.values())), "addresses": addresses}
        return await serve_until_stopped(ready, _operations(servers) if control else None, stopping)


def _operations(servers: dict[str, SimServer]) -> dict[str, Callable[..., Any]]:
    """What the control line can ask, each of one port or, without a name, of all."""

    def of(port: str | None) -> list[SimServer]:
        return list(servers.values()) if port is None else [servers[port]]

    def faults(fields: dict[str, Any], port: str | None = None) -> None:
        for server in of(port):
            server.set_fault_fields(fields)

    def each(action: Callable[[SimServer], None]) -> Callable[..., None]:
        def act(port: str | None = None) -> None:
            for server in of(port):
                action(server)

        return act

    return {
        "report": lambda: {port: server.report() for port, server in servers.items()},
        "faults": faults,
        "unplug": each(SimServer.unplug),
        "replug": each(SimServer.replug),
        "power_cycle": each(SimServer.power_cycle),
    }


def speed_of(text: str) -> float:
    """A speed from ``max`` or a number over 0.

    Raises:
        ValueError: It is neither.
    """
    speed = math.inf if text == "max" else float(text) if _is_number(text) else math.nan
    if not speed > 0:
        raise ValueError(f"{text!r} is no speed; possible: a number over 0, or max")
    return speed


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m duodaq.sim.replay WIRELOG …``: the exit code; 2 if something is wrong in what was asked."""
    parser = argparse.ArgumentParser(prog="python -m duodaq.sim.replay", description="Serve a recorded wire.")
    parser.add_argument("wirelog", type=Path)
    parser.add_argument("--port", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--pty", action="store_true", help="on pseudo terminals")
    parser.add_argument("--link", type=Path, metavar="PATH", help="a stable name; with several ports a folder for them")
    parser.add_argument("--own-folder", action="store_true", help="stable names in a folder that ends with it")
    parser.add_argument("--tcp", type=int, metavar="PORT", help="on TCP; 0 for any that is free")
    parser.add_argument("--speed", default="1", help="1, 10 … or max")
    parser.add_argument("--unknown", default="silent", metavar="POLICY")
    parser.add_argument("--at-end", choices=("repeat", "cycle"), default="repeat")
    parser.add_argument("--in-order", action="store_true")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="requests on stdin, answers on stdout")
    given = parser.parse_args(argv)
    try:
        with _folder(given.own_folder) as folder:
            return Replay(
                given.wirelog,
                ports=tuple(given.port),
                endpoint="pty" if given.pty else "tcp" if given.tcp is not None else None,
                link=folder or given.link,
                tcp_port=given.tcp or 0,
                speed=speed_of(given.speed),
                unknown=UnknownPolicy.parse(given.unknown),
                at_end=given.at_end,
                in_order=given.in_order,
                faults=Faults.parse(*given.fault),
                seed=given.seed,
            ).run(control=given.control)
    except (ValueError, OSError, DuodaqError) as error:
        if given.control:
            say({"refused": str(error)})
            return 2
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201  a process of its own speaks here
        return 2


@contextlib.contextmanager
def _folder(wanted: bool) -> Generator[Path | None]:
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="duodaq-replay-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "ports"
