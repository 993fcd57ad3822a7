from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from duodaq.errors import ConfigError
from duodaq.sim import Faults
from duodaq.sim.replay import Replay, UnknownPolicy, speed_of


class Asked(NamedTuple):
    """The options as they were given."""

    wirelog: Path
    ports: tuple[str, ...]
    pty: bool
    link: Path | None
    tcp: int | None
    speed: str
    unknown: str
    at_end: str
    in_order: bool
    faults: tuple[str, ...]
    seed: int


def serve_replay(asked: Asked) -> int:
    """Serve a recording until a signal; the exit code.

    Raises:
        ConfigError: It is no wire log, has no such port, options are wrong, or an address is taken. Nothing was served.
    """
    if asked.tcp is not None and (asked.pty or asked.link):
        raise ConfigError("--tcp excludes --pty and --link", remedy="Choose one of them.")
    if asked.at_end not in ("repeat", "cycle"):
        raise ConfigError("possible: repeat, cycle", key=f"--at-end {asked.at_end}")
    try:
        replay = Replay(
            asked.wirelog,
            ports=asked.ports,
            endpoint="tcp" if asked.tcp is not None else "pty" if asked.pty or asked.link else None,
            link=asked.link,
            tcp_port=asked.tcp or 0,
            speed=speed_of(asked.speed),
            unknown=UnknownPolicy.parse(asked.unknown),
            at_end=asked.at_end,
            in_order=asked.in_order,
            faults=Faults.parse(*asked.faults),
            seed=asked.seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        return replay.run()
    except OSError as error:
        where = f"--tcp {asked.tcp}" if asked.tcp is not None else f"--link {asked.link}" if asked.link else None
        raise ConfigError(f"cannot serve there: {error.strerror or error}", key=where) from error
