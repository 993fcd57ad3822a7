from __future__ import annotations

from typing import Any

from rich.table import Table

from duodaq.cli._report import plain_table
from duodaq.cli.demo._table import Bench

Ledgers = dict[str, Any]


def ledger_table(ledgers: Ledgers) -> tuple[Table, list[str]]:
    """The books of both sides as a table, and what is wrong with them: each row must balance."""
    problems = [f"The ledger of {side} does not balance." for side, books in ledgers.items() if not books["balanced"]]
    table = plain_table(
        "Ledgers, since each reader joined: produced = delivered + dropped + in flight",
        ("side", "stream", "reader"),
        ("produced", "delivered", "dropped", "in flight"),
    )
    for side, books in ledgers.items():
        for row in books["rows"]:
            if row["offered"]:
                numbers = (row["offered"], row["delivered"], sum(row["dropped"].values()), row["in_flight"])
                table.add_row(side.upper(), row["stream"], row["subscriber"], *map(str, numbers))
    return table, problems


def device_table(ledgers: Ledgers, bench: Bench, frames_lost: int) -> tuple[Table, list[str]]:
    """What each device counted itself, in its own process, beside what the lab measured; and what does not agree.

    `frames_lost` is how many frames the lab missed, by the numbers that the camera gives them.
    """
    problems: list[str] = []
    table = plain_table("Beside the devices' own counts", ("stream", "device"), ("sent", "measured", "known lost"))
    for stream, (device, sent) in _sent(bench).items():
        side, lost = ("v4", frames_lost) if stream.startswith("camera") else ("v2", 0)
        measured = sum(streams.get(stream, 0) for streams in ledgers[side]["produced"].values())
        table.add_row(stream, device, str(sent), str(measured), str(lost))
        if sent != measured + lost:
            problems.append(f"{stream}: its device sent {sent}, the lab measured {measured} and knows of {lost} lost.")
    return table, problems


def recorded(ledgers: Ledgers, stream: str) -> int:
    """How many rows of `stream` the recorder took."""
    rows = ledgers["v4"]["rows"]
    return sum(row["delivered"] for row in rows if row["subscriber"] == "recorder" and row["stream"] == stream)


def _sent(bench: Bench) -> dict[str, tuple[str, int]]:
    camera = next(counts for counts in bench.table.counts().values() if "frame" in counts["produced"])
    return {
        "meter.power": ("Newport 1830-C", bench.meter.report()["produced"]["D"]),
        "dmm.reference": ("HP 34401A", bench.dmm.report()["produced"]["reading"]),
        "camera.frames": (camera["model"], camera["produced"]["frame"] - camera["discarded"]),
    }
