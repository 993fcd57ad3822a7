"""What a shadow has found, as a value: for the page, the command line, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from duodaq.migration._compare import Finding

_KINDS = {
    "unit": "another unit",
    "rounding": "rounded otherwise",
    "value": "another value",
    "axis": "another axis",
    "missing": "V2 orders it, V4 does not",
    "extra": "V4 orders it, V2 does not",
    "rate": "V4 asks less often",
    "silent": "V4 measures nothing",
    "end": "V4's commands have no end",
    "error": "an error on one side only",
    "start": "the V4 driver did not start",
    "blocked": "the V4 driver blocks its loop",
    "died": "the V4 driver's process died",
}


@dataclass
class ShadowReport:
    """What a V4 driver did beside V2's, on the same answers.

    Attributes:
        within: Whether nothing differed.
        orders: How many orders of V2's were matched, and are missing in V4 or extra there.
        values: How many measurements were made of the same reply, and how many of those were the same.
        findings: What differed: each kind and subject once, with the first example and how often.
        not_comparable: What could not be compared, and why.
        timing_s: Percentiles: of V2's exchanges, and of what V4 takes from a reply to a published value.
    """

    instrument: str
    source: str
    v2_driver: str
    v4_driver: str
    began_ns: int = 0
    lasted_s: float = 0.0
    orders: dict[str, int] = field(default_factory=lambda: {"matched": 0, "missing": 0, "extra": 0})
    values: dict[str, int] = field(default_factory=lambda: {"compared": 0, "same": 0})
    questions: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    errors: dict[str, int] = field(default_factory=lambda: {"v2": 0, "v4": 0})
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    not_comparable: dict[str, str] = field(default_factory=dict[str, str])
    timing_s: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    @property
    def within(self) -> bool:
        """Whether nothing differed."""
        return not self.findings

    def add(self, findings: Iterable[Finding]) -> None:
        """Take findings: one row for each kind and subject."""
        self.add_counted((one, 1) for one in findings)

    def add_counted(self, findings: Iterable[tuple[Finding, int]]) -> None:
        """Take findings, each with how often it was found."""
        rows = {(row["kind"], row["subject"]): row for row in self.findings}
        for one, count in findings:
            row = rows.get((one.kind, one.subject))
            if row is None:
                row = dict[str, Any]()
                row |= {"kind": one.kind, "subject": one.subject, "v2": one.v2, "v4": one.v4, "count": 0}
                rows[one.kind, one.subject] = row
                self.findings.append(row)
            row["count"] += count

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "within": self.within}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> ShadowReport:
        """The report that `to_dict` made these values of."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})

    def to_markdown(self) -> str:
        """For people."""
        verdict = "within tolerance" if self.within else f"{len(self.findings)} differences"
        lines = [
            f"# Shadow of {self.instrument}: {verdict}",
            "",
            f"{self.v4_driver} (V4) beside {self.v2_driver} (V2), from {self.source}, for {self.lasted_s:.1f} s.",
            "",
            "| | matched | missing in V4 | extra in V4 |",
            "| --- | --- | --- | --- |",
            f"| orders | {self.orders['matched']} | {self.orders['missing']} | {self.orders['extra']} |",
            "",
            f"{self.values['same']} of {self.values['compared']} measurements were the same; "
            f"errors: {self.errors['v2']} in V2, {self.errors['v4']} in V4.",
        ]
        lines += _table("What differed", ("what", "about", "V2", "V4", "times"), self._found())
        asked = [(s, str(n.get("v2", 0)), str(n.get("v4", 0))) for s, n in sorted(self.questions.items())]
        lines += _table("Questions", ("question", "V2", "V4"), asked)
        timing = [(what, *(f"{p[k] * 1e3:.2f}" for k in ("p50", "p95", "p99"))) for what, p in self.timing_s.items()]
        lines += _table("Timing, in milliseconds", ("what", "p50", "p95", "p99"), timing)
        lines += _table("Not comparable", ("what", "why"), sorted(self.not_comparable.items()))
        return "\n".join(lines) + "\n"

    def _found(self) -> list[tuple[str, ...]]:
        return [
            (_KINDS.get(row["kind"], ""), *(str(row[key]) for key in ("subject", "v2", "v4", "count")))
            for row in self.findings
        ]


def _table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    if not body:
        return []
    return ["", f"## {title}", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *body]
