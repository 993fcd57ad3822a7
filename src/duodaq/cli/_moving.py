from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duodaq.app import connect, user_name
from duodaq.cli._console import say_json
from duodaq.cli._report import plain_table
from duodaq.clock import Deadline, block
from duodaq.config import load_lab, load_text
from duodaq.errors import ConfigError, CutoverError, LifecycleError, StorageError
from duodaq.storage.reading import counted
from duodaq.units import parse_duration_s

_LOOK_S = 0.5
_IN_WORDS = {"epoch": "move number", "gap_s": "seconds without an owner"}


def show_status(lab: str | None, instrument: str | None, out: Console, *, as_json: bool) -> int:
    """Print where each instrument of a running lab is, and what its list lacks."""
    with connect(lab) as client:
        found: list[dict[str, Any]] = client.migrate("status", instrument)
    if as_json:
        say_json(out, found)
        return 0
    out.print(_overview(found))
    if instrument is not None:
        for item in found[0]["checklist"]:
            out.print(Text(f"  [{'x' if item['met'] else ' '}] {item['name']}: {item['why']}"), soft_wrap=True)
        for entry in found[0]["log"]:
            facts = ", ".join(f"{_IN_WORDS.get(k, k)} {v}" for k, v in entry.items() if k not in ("at", "what"))
            out.print(Text(f"  {entry['at']}  {entry['what']}  {facts}"), soft_wrap=True)
    return 0


def _overview(found: list[dict[str, Any]]) -> Table:
    table = plain_table("Migration", ("instrument", "is in", "driver", "what is missing"), ("times moved",))
    for one in found:
        missing = [item["name"] for item in one["checklist"] if not item["met"]]
        lacks = ", ".join(missing) if one["runtime"] == "v2" else ""
        table.add_row(*map(escape, (one["id"], one["stage"], one["driver"], lacks, str(one["epoch"]))))
    return table


def run_shadow(
    lab: str | None, instrument: str, lasts: str, report: Path | None, out: Console, *, as_json: bool
) -> int:
    """Have the V4 driver run beside V2's for a while, and say what differed; 1 if anything did. Ctrl-C ends it early.

    Raises:
        ConfigError: The duration means nothing.
        StorageError: The report cannot be written. It was shown.
    """
    seconds = _seconds(lasts)
    with connect(lab) as client:
        client.migrate("shadow", instrument)
        deadline = Deadline(seconds)
        try:
            while not deadline.passed:
                block(min(_LOOK_S, deadline.left_s))
                if out.is_terminal and not as_json:
                    now = client.migrate("report", instrument)
                    out.print(Text(_in_short(now)), end="\r")
        except KeyboardInterrupt:
            out.print()
        found = client.migrate("end_shadow", instrument)
    return _tell(found, report, out, as_json=as_json)


def _seconds(text: str) -> float | None:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise ConfigError(str(error), key=f"--for {text}") from None


def _in_short(found: dict[str, Any]) -> str:
    values, orders = found["values"], found["orders"]
    return (
        f"{found['lasted_s']:.0f} s: {values['same']} of {values['compared']} measurements the same, "
        f"{orders['matched']} orders matched, {len(found['findings'])} differences   "
    )


def _tell(found: dict[str, Any], report: Path | None, out: Console, *, as_json: bool) -> int:
    markdown = found.pop("markdown")
    if as_json:
        say_json(out, found)
    elif out.is_terminal:
        out.print(Markdown(markdown))
    else:
        out.print(Text(markdown), soft_wrap=True)
    if report is not None:  # it has been shown: nobody looks for ten minutes for nothing
        try:
            report.write_text(markdown if report.suffix == ".md" else json.dumps(found, indent=2) + "\n")
        except OSError as error:
            raise StorageError(f"the report was not written to {report}: {error.strerror}") from error
    return 0 if found["within"] else 1


def replay_shadow(
    wirelog: Path, file: Path, instrument: str, report: Path | None, out: Console, *, as_json: bool
) -> int:
    """A shadow from a recorded wire log, with no instrument at all; 1 if anything differed.

    Raises:
        ConfigError: There is no such instrument in the lab file.
        LifecycleError: V4 has no driver for it, or it asked nothing on this recording.
        StorageError: It is no wire log, or the report cannot be written.
    """
    from duodaq.migration import Beside, convert_lab, equivalents_between, shadow_recording
    from duodaq.schema import open_wirelog

    lab, text = load_lab(file), file.read_bytes().decode("utf-8-sig")
    done = convert_lab(text, {instrument})
    if instrument in done.left:
        raise LifecycleError(done.left[instrument], instrument=instrument)
    v2 = next(d for d in lab.instruments if d.id == instrument)
    v4 = next(d for d in load_text(done.text, file).instruments if d.id == instrument)
    port = next(p for p in lab.ports if p.name == v2.port)
    records = open_wirelog(wirelog).records(port.name)
    beside = Beside(v2, v4, port, equivalents_between(v2, port.codec, v4))
    found = asyncio.run(shadow_recording(beside, records, str(wirelog)))
    return _tell({**found.to_dict(), "markdown": found.to_markdown()}, report, out, as_json=as_json)


def move(lab: str | None, instrument: str, do: str, out: Console, *, as_json: bool, **facts: Any) -> int:
    """Cut over or roll back; 1 if it was refused or undone, and which runtime has the instrument."""
    with connect(lab) as client:
        facts["by"] = facts.get("by") or user_name()
        try:
            done = client.migrate(do, instrument, **facts)
        except CutoverError as error:
            if as_json:
                say_json(out, {"id": instrument, "moved": False, "error": str(error)})
                return 1
            out.print(Text(f"Not moved: {error}"), soft_wrap=True)
            return 1
    if as_json:
        say_json(out, {"id": instrument, "moved": True, **done})
        return 1 if done.get("not_written") else 0
    out.print(f"{escape(instrument)} is in {done['owner']} now; it was moved {counted(done['epoch'], 'time')} so far.")
    for what, at_s in done["steps"]:
        out.print(Text(f"  {at_s * 1e3:7.1f} ms  {what}"))
    out.print(f"  {done['gap_s'] * 1e3:7.1f} ms without an owner; {done['took_s'] * 1e3:.1f} ms in all")
    if done["diff"]:
        out.print(Text(done["diff"]), soft_wrap=True)
    if why := done.get("not_written"):
        out.print(Text(f"It has moved, but the lab file does not say so: {why}"), soft_wrap=True)
        return 1
    if (said := done.get("file_says", done["owner"])) != done["owner"]:
        hint = f"The lab file still says {said}, and the next start is in {said}: with --write it says {done['owner']}."
        out.print(Text(hint), soft_wrap=True)
    return 0


def tick(lab: str | None, instrument: str, item: str, by: str | None, out: Console, *, as_json: bool) -> int:
    """Answer for a line of the checklist, by name."""
    who = by or user_name()
    with connect(lab) as client:
        client.migrate("tick", instrument, item=item, by=who)
    if as_json:
        say_json(out, {"id": instrument, "item": item, "by": who})
        return 0
    out.print(Text(f"{who} answers for {item} of {instrument}."))
    return 0
