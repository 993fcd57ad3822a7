from __future__ import annotations

from pathlib import Path

from duodaq.errors import ConfigError, PortLostError
from duodaq.sim import NAMES, run_simulator


def serve_simulator(
    name: str,
    *,
    pty: bool,
    ports: dict[str, int | None],
    link: Path | None,
    model: str | None,
    seed: int,
    table: str | None,
) -> int:
    """Serve one simulated instrument until a signal; the exit code. `ports`: by ``tcp``, ``hislip`` and ``vxi11``.

    Raises:
        ConfigError: No such simulator, model or table, options that exclude each other, or an address that is taken.
    """
    if name not in NAMES:
        raise ConfigError(f"no simulator {name!r}", remedy=f"There are: {', '.join(sorted(NAMES))}.")
    chosen = [kind for kind, port in ports.items() if port is not None]
    if len(chosen) > 1 or (chosen and (pty or link)):
        others = [f"--{kind}" for kind in chosen[1:]] or ["--pty and --link"]
        raise ConfigError(f"--{chosen[0]} excludes {' and '.join(others)}", remedy="Choose one of them.")
    endpoint = chosen[0] if chosen else "pty"
    try:
        return run_simulator(
            name,
            model=model,
            endpoint=endpoint,
            link=None if link is None else str(link),
            tcp_port=ports.get(endpoint) or 0,
            table=table,
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except PortLostError as error:
        raise ConfigError(str(error), key=f"--table {table}") from error
    except OSError as error:
        raise ConfigError(
            f"cannot serve there: {error.strerror or error}", key=_address(endpoint, ports, link)
        ) from error


def _address(endpoint: str, ports: dict[str, int | None], link: Path | None) -> str | None:
    if endpoint != "pty":
        return f"--{endpoint} {ports[endpoint]}"
    return f"--link {link}" if link is not None else None
