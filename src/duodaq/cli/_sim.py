from __future__ import annotations

from pathlib import Path

from duodaq.errors import ConfigError, PortLostError
from duodaq.sim import NAMES, run_simulator


def serve_simulator(
    name: str, *, pty: bool, tcp: int | None, link: Path | None, model: str | None, seed: int, table: str | None
) -> int:
    """Serve one simulated instrument until a signal; the exit code.

    Raises:
        ConfigError: No such simulator, model or table, options that exclude each other, or an address that is taken.
    """
    if name not in NAMES:
        raise ConfigError(f"no simulator {name!r}", remedy=f"There are: {', '.join(sorted(NAMES))}.")
    if tcp is not None and (pty or link):
        raise ConfigError("--tcp excludes --pty and --link", remedy="Choose one of them.")
    try:
        return run_simulator(
            name,
            model=model,
            endpoint="pty" if tcp is None else "tcp",
            link=None if link is None else str(link),
            tcp_port=tcp or 0,
            table=table,
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except PortLostError as error:
        raise ConfigError(str(error), key=f"--table {table}") from error
    except OSError as error:
        raise ConfigError(f"cannot serve there: {error.strerror or error}", key=_address(tcp, link)) from error


def _address(tcp: int | None, link: Path | None) -> str | None:
    if tcp is not None:
        return f"--tcp {tcp}"
    return f"--link {link}" if link is not None else None
