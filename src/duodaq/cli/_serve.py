"""The program that serves a lab's streams to others: it ends at once, whatever its readers do."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from duodaq.cli._console import say_json_line
from duodaq.errors import ConfigError
from duodaq.flight import FlightService, Serving
from duodaq.link import find_lab, lab_of

_LEAVE_S = 1.0
_SWEEP_S = 2.0


class Asked(NamedTuple):
    """What the command line says."""

    lab: str | None
    host: str
    port: int
    token: str | None
    certificate: Path | None
    key: Path | None
    runs: Path
    recorded: bool
    as_json: bool


def serve_flight(asked: Asked, out: Console, err: Console) -> int:
    """Serve until Ctrl-C; the exit code.

    Raises:
        LifecycleError: No lab runs, or several.
        ConfigError: It must not be opened so, a file cannot be read, or the address is taken.
    """
    name = None if asked.recorded else lab_of(find_lab(asked.lab))
    lab = asked.lab or name
    certificate, key = _read(asked.certificate, "--tls-cert"), _read(asked.key, "--tls-key")
    serving = Serving(asked.host, asked.port, asked.token, certificate, key).checked()
    service = FlightService(serving, None if name is None else lambda: find_lab(lab), asked.runs)
    if asked.token and certificate is None and asked.host not in ("127.0.0.1", "::1", "localhost"):
        err.print("[yellow]Without a certificate, the token and all data travel in the clear.[/]")
    ended = _end_by_signals()  # before it says what ends it: whoever reads that may be quick
    if asked.as_json:
        say_json_line(out, {"address": service.address, "lab": name})
    else:
        what = "recorded runs" if name is None else f"lab {name}, and recorded runs"
        out.print(f"Serving {escape(what)} at {service.address} until Ctrl-C.", soft_wrap=True)
    sys.stdout.flush()
    while not ended.wait(_SWEEP_S):
        service.sweep()
    return _leave(service)


def _read(path: Path | None, option: str) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key=f"{option} {path}") from error


def _end_by_signals() -> threading.Event:
    asked = threading.Event()

    def end(*_: Any) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return asked


def _leave(service: FlightService) -> int:
    """End in order if all readers let it, or else without them: gRPC waits for a reader that has stopped, for ever."""
    leaving = threading.Thread(target=service.shutdown, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
