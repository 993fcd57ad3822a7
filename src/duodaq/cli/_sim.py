from __future__ import annotations

from pathlib import Path

from duodaq.errors import ConfigError
from duodaq.sim import NAMES, run_simulator


def serve_simulator(
    name: str, *, pty: bool, tcp: int | None, link: Path | None, model: str | None, seed: int, table: str | None
) -> None:
    """Serve one simulated instrument until a signal.

    Raises:
        ConfigError: No such simulator, or options that exclude each other.
    """
    if name not in NAMES:
        raise ConfigError(f"no simulator {name!r}", remedy=f"There are: {', '.join(sorted(NAMES))}.")
    if tcp is not None and (pty or link):
        raise ConfigError("--tcp excludes --pty and --link", remedy="Choose one of them.")
    run_simulator(
        name,
        model=model,
        endpoint="pty" if tcp is None else "tcp",
        link=None if link is None else str(link),
        tcp_port=tcp or 0,
        table=table,
        seed=seed,
    )
