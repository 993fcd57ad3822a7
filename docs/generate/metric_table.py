"""Every metric, from the table that the exposition is made from."""

from __future__ import annotations

from markup import code
from markup import table as table_of

from duodaq.telemetry import METRICS


def table(words: list[str], like: list[list[str]]) -> str:
    rows = (
        (code(metric.series), metric.kind, ", ".join(map(code, metric.labels)), metric.words)
        for metric in METRICS.values()
    )
    return table_of(("name", "kind", "labels", "meaning"), rows)
