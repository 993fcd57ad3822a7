from __future__ import annotations

from typing import Any

from rich.table import Table

from duodaq.cli.demo._table import Bench
from duodaq.sim import pvcam


def ledger_table(ledgers: dict[str, Any], bench: Bench) -> tuple[Table, list[str]]:
    """The books of both sides as a table, and what is wrong with them: each must balance, and agree with the device.

    What a device sent is counted by its simulator, in another process; it is compared with what the lab measured.
    """
    problems = [f"The ledger of {side} does not balance." for side, books in ledgers.items() if not books["balanced"]]
    table = Table(title="Ledgers: produced = delivered + dropped + in flight", title_justify="left")
    for column in ("side", "stream", "reader", "produced", "delivered", "dropped", "in flight"):
        table.add_column(column, justify="left" if column in ("side", "stream", "reader") else "right")
    for side, books in ledgers.items():
        for row in books["rows"]:
            if row["offered"]:
                numbers = (row["offered"], row["delivered"], sum(row["dropped"].values()), row["in_flight"])
                table.add_row(side, row["stream"], row["subscriber"], *map(str, numbers))
    for stream, (sent, measured) in _compare(ledgers, bench).items():
        table.add_row("device", stream, "its own count", str(sent), str(measured), str(sent - measured), "")
        if sent != measured:
            problems.append(f"{stream}: its device sent {sent}, the lab measured {measured}.")
    return table, problems


def _compare(ledgers: dict[str, Any], bench: Bench) -> dict[str, tuple[int, int]]:
    frames = sum(camera["read"] for camera in pvcam.camera_report().values())
    return {
        "meter.power": (bench.meter.report()["produced"]["D"], _produced(ledgers, "v2", "meter.power")),
        "dmm.reference": (bench.dmm.report()["produced"]["reading"], _produced(ledgers, "v2", "dmm.reference")),
        "camera.frame": (frames, _produced(ledgers, "v4", "camera.frame")),
    }


def _produced(ledgers: dict[str, Any], side: str, stream: str) -> int:
    return sum(streams.get(stream, 0) for streams in ledgers[side]["produced"].values())
