from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from duodaq import markup
from duodaq.app._channel import Channel
from duodaq.app._pages import presets_page, shown, told
from duodaq.app._preset_row import Row

_HEAD = ("setting", "now", "then", "unit", "")


class PresetDiff:
    """What loading a preset changes, or has changed: `rows`, each with `now`, `then`, `unit`, and `what` is done.

    As text, and in a notebook, it is a table; settings that are the same already are left out of that.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    @property
    def changes(self) -> list[Row]:
        """The rows that are not the same."""
        return [row for row in self.rows if row.what != "same"]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.changes)

    def _lines(self) -> list[tuple[str, ...]]:
        told = {"set": "", "left": "left as it is", "missing": "cannot be set"}
        return [
            (
                f"{row.instrument}.{row.name}",
                _shown(row.now),
                _shown(row.then),
                row.unit,
                ": ".join(part for part in (told[row.what], row.why) if part),
            )
            for row in self.changes
        ]

    def __repr__(self) -> str:
        lines = [_HEAD, *self._lines()]
        if len(lines) == 1:
            return f"<no differences in {len(self.rows)} settings>"
        widths = [max(len(line[n]) for line in lines) for n in range(len(_HEAD))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def _repr_html_(self) -> str:
        lines = self._lines()
        said = f"{len(lines)} of {len(self.rows)} settings differ" if lines else repr(self)[1:-1]
        return markup.page(said, (), markup.table(_HEAD, lines))


class PresetsHandle:
    """The presets of a lab, for scripts and notebooks: files in ``presets`` beside its lab file.

    ::

        lab.presets.save("alignment", note="pinhole in")
        lab.presets.diff("alignment")       # value now, value then
        lab.presets.load("alignment")
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def save(
        self, name: str, instruments: Any = None, *, note: str = "", replace: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Read every setting from its device and keep it under a name; the values, by instrument.

        Args:
            name: Letters, digits, spaces, ``.``, ``-`` and ``_``.
            instruments: Which (``[lab.dmm]``, or names); all if none is named.
            note: A word about it.
            replace: Whether to put it in the place of one of that name.

        Raises:
            LifecycleError: There is one of that name, or no such instrument. Nothing was written.
            ConfigError: It cannot be a name. Nothing was written.
            StorageError: It cannot be written.
        """
        asked = {"name": name, "instruments": names_of(instruments), "note": note, "replace": replace}
        return self._channel.request("preset_save", asked)["settings"]

    def diff(self, name: str, other: str | None = None, *, instruments: Any = None) -> PresetDiff:
        """What loading it would change, read from the devices; or how the preset `other` differs from it.

        Raises:
            ConfigError: There is no such preset.
            LifecycleError: Nothing of such an instrument is in it.
        """
        asked = {"name": name, "other": other, "instruments": names_of(instruments)}
        return PresetDiff(msgspec.convert(self._channel.request("preset_diff", asked), list[Row]))

    def load(self, name: str, *, instruments: Any = None) -> PresetDiff:
        """Set what a preset has and is not so already; what that has changed, with the values before.

        At a prompt and in a notebook the result is shown as a table; `diff` shows the same before anything is set.

        What makes safe is set first, then what the lab file declares, in its order. What is not known to be
        harmless, and is not allowed by the lab file, is `left`, with the reason.

        Args:
            name: Which.
            instruments: Only these of it.

        Raises:
            ConfigError: There is no such preset. Nothing was set.
            LifecycleError: A setting of it is not there. Nothing was set.
            OutOfRangeError: A value is beyond its limits. Nothing was set.
            NotInControlError: Somebody else controls one of its instruments. Nothing was set.
            UnsafeStateError: A stop is latched, and something of it could emit. Nothing was set.
            PartlySetError: A device refused one: `done` says what was set before, `not_done` what was not.
        """
        asked = {"name": name, "instruments": names_of(instruments)}
        return PresetDiff(msgspec.convert(self._channel.request("preset_load", asked), list[Row]))

    def remove(self, name: str) -> None:
        """Remove one.

        Raises:
            ConfigError: There is none of this name.
        """
        self._channel.request("preset_remove", {"name": name})

    def list(self) -> list[dict[str, Any]]:
        """Each with name, when it was saved and by whom, its note, and what it is about."""
        return self._channel.request("presets", {})

    def __iter__(self) -> Iterator[str]:
        return iter([one["name"] for one in self.list()])

    def __getitem__(self, name: str) -> dict[str, dict[str, Any]]:
        return self._channel.request("preset", {"name": name})["settings"]

    def _repr_html_(self) -> str:
        return shown("presets", lambda: presets_page(self.list()))

    def __repr__(self) -> str:
        return told("presets", lambda: ", ".join(self) or "none")


def names_of(instruments: Any) -> list[str] | None:
    """Instruments by name: handles, names, one or several; None for all."""
    if instruments is None:
        return None
    given: Iterable[Any] = [instruments] if isinstance(instruments, str) or hasattr(instruments, "id") else instruments
    return [one if isinstance(one, str) else str(one.id) for one in given]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
