from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Self, cast

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


class FailedReadings(logging.Handler):
    """Counts the readings of each stream that the lab says have failed: each may have been sent all the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging` asks for it."""
        said: Any = record.msg
        if isinstance(said, dict):
            facts = cast("dict[str, Any]", said)
            if facts.get("event") == "reading failed":
                self.counts[f"{facts.get('instrument')}.{facts.get('channel')}"] += 1

    def __enter__(self) -> Self:
        logging.getLogger("duodaq").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("duodaq").removeHandler(self)


def device_table(ledgers: Ledgers, bench: Bench, frames_lost: int, failed: Counter[str]) -> tuple[Table, list[str]]:
    """What each device counted itself, in its own process, beside what the lab measured; and what does not agree.

    `frames_lost` is how many frames the lab missed, by the numbers that the camera gives them; `failed` how many
    readings of each stream failed.
    """
    return _beside(_sent(bench), ledgers, frames_lost, failed)


def _beside(
    counts: dict[str, tuple[str, int]], ledgers: Ledgers, frames_lost: int, failed: Counter[str]
) -> tuple[Table, list[str]]:
    problems: list[str] = []
    numbers = ("sent", "measured", "known lost", *(["failed"] if failed.total() else []))
    table = plain_table("Beside the devices' own counts", ("stream", "device"), numbers)
    for stream, (device, sent) in counts.items():
        side, lost = ("v4", frames_lost) if stream.startswith("camera") else ("v2", 0)
        measured = sum(streams.get(stream, 0) for streams in ledgers[side]["produced"].values())
        table.add_row(stream, device, *map(str, (sent, measured, lost, failed[stream])[: len(numbers)]))
        if not measured + lost <= sent <= measured + lost + failed[stream]:  # a late reply was sent, and is no reading
            known = f"knows of {lost} lost and {failed[stream]} failed"
            problems.append(f"{stream}: its device sent {sent}, the lab measured {measured} and {known}.")
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
