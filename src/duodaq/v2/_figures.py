from __future__ import annotations

from typing import Any

from duodaq.model import Fate


class Figures:
    """What has become of an instrument's commands, by fate, and how long its driver took."""

    def __init__(self) -> None:
        self.fates: dict[Fate, int] = dict.fromkeys(Fate, 0)
        self.overdue = 0
        self.late = 0
        self.hangs = 0
        self.calls = 0
        self.call_s = 0.0
        self.longest_call_s = 0.0
        self.readings = 0
        self.unpublished = 0

    def note_fate(self, fate: Fate) -> None:
        """A command has ended."""
        self.fates[fate] += 1

    def note_call(self, took_s: float) -> None:
        """A call of the driver has returned after `took_s` seconds."""
        self.calls += 1
        self.call_s += took_s
        self.longest_call_s = max(self.longest_call_s, took_s)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        plain = {key: value for key, value in vars(self).items() if key not in ("fates", "call_s")}
        mean_s = self.call_s / self.calls if self.calls else 0.0
        return {**{fate.value.replace(" ", "_"): n for fate, n in self.fates.items()}, **plain, "mean_call_s": mean_s}
