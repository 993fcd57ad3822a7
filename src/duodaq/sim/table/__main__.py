"""``python -m duodaq.sim.table --seed N [--socket PATH]``: the optical table as a process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from duodaq.sim._process import Stopping, serve_until_stopped
from duodaq.sim.table import LocalTable, TableService


async def _serve(table: LocalTable, path: str, *, control: bool) -> int:
    service = TableService(table, path)
    await service.start()
    try:
        ready = {"instrument": "table", "address": path}
        return await serve_until_stopped(ready, {} if control else None, Stopping())
    finally:
        await service.aclose()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one table until SIGINT or SIGTERM; prints one line of JSON when it is ready."""
    parser = argparse.ArgumentParser(prog="python -m duodaq.sim.table", description="Serve the optical table.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--socket", metavar="PATH", help="where to listen; a private place by default")
    parser.add_argument("--shutter", choices=("open", "closed"), default="closed", help="how it stands at the start")
    parser.add_argument("--control", action="store_true", help="end when stdin ends")
    given = parser.parse_args(argv)
    table = LocalTable(given.seed, shutter_open=given.shutter == "open")
    if given.socket:
        return asyncio.run(_serve(table, given.socket, control=given.control))
    with tempfile.TemporaryDirectory(prefix="duodaq-table-") as folder:
        return asyncio.run(_serve(table, str(Path(folder) / "table"), control=given.control))


if __name__ == "__main__":
    gc.freeze()  # as in the simulators
    sys.exit(main())
