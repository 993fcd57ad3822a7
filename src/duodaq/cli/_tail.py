"""What passes a port, line by line, as a protocol analyser shows it: live, or from the file of a wire log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from duodaq.app import connect
from duodaq.cli._console import say_json_line
from duodaq.clock import block
from duodaq.drivers import CODECS, codec
from duodaq.errors import ConfigError, ReplyFormatError
from duodaq.model import WireRecord
from duodaq.ports import Framing, PortCodec, meaning, meaning_of_reply
from duodaq.schema import open_wirelog

_EVERY_S = 0.1
_PART = 1000
_LAST = 20
_SHOWN = 60
_REMEMBERED = 256
_ARROWS = {">": ("→", "green"), "<": ("←", "cyan"), "!": ("!", "bold yellow")}


class Analyser:
    """Turns the records of one port into lines; it remembers the questions, to say what the answers mean."""

    def __init__(self, spoken: PortCodec | None) -> None:
        self._codec = spoken
        self._asked: OrderedDict[int, bytes] = OrderedDict()
        self._answers: dict[int, Framing] = {}
        self._before_ns = 0
        self._number = 0

    def facts(self, record: WireRecord) -> dict[str, Any]:
        """One record as plain values, with what it means and how long after the one before it came."""
        delta_ns = record.t_ns - self._before_ns if self._before_ns else None
        missing = record.sequence - self._number - 1 if self._number else 0
        self._before_ns, self._number = record.t_ns, record.sequence
        return {
            "t_ns": record.t_ns,
            "delta_s": None if delta_ns is None else delta_ns / 1e9,
            "port": record.port,
            "holder": record.holder,
            "exchange": record.exchange,
            "direction": record.direction,
            "data": record.data.decode("latin-1")
            if record.direction != "!"
            else record.data.decode("utf-8", "replace"),
            "meaning": self._meaning(record),
            "trace_id": record.trace_id,
            "sequence": record.sequence,
            "missing_before": missing,
        }

    def _meaning(self, record: WireRecord) -> str:
        spoken = self._codec
        if spoken is None or record.direction == "!":
            return ""
        if record.direction == "<":
            return self._meaning_of_reply(spoken, record)
        if record.exchange:
            self._asked[record.exchange] = self._asked.get(record.exchange, b"") + record.data
            self._answers.pop(record.exchange, None)
            if len(self._asked) > _REMEMBERED:
                self._answers.pop(self._asked.popitem(last=False)[0], None)
        return meaning(spoken, record.data)

    def _meaning_of_reply(self, spoken: PortCodec, record: WireRecord) -> str:
        """What a reply says, beside its last piece: a part of a number is another number."""
        asked = self._asked.get(record.exchange) if record.exchange else None
        if asked is None:
            return ""
        framing = self._answers.pop(record.exchange, None) or spoken.expects_reply(asked)
        if framing is None:
            return meaning_of_reply(spoken, asked, record.data)
        try:
            whole = framing.feed(record.data)
        except ReplyFormatError:
            return ""
        if whole is None:
            self._answers[record.exchange] = framing
            return ""
        return meaning_of_reply(spoken, asked, whole)


def tail_port(
    port: str, lab: str | None, file: Path | None, out: Console, *, last: int | None, once: bool, as_json: bool
) -> None:
    """Show what passes a port until Ctrl-C, beginning with the `last` records: 20, if none is given; of a file, all.

    Raises:
        ConfigError: There is no such port.
        StorageError: The file is no wire log.
        LifecycleError: No such lab runs.
    """
    batches = _of_file(port, file, last) if file is not None else _of_lab(port, lab, last, once=once)
    analyser: Analyser | None = None
    try:
        for name, records in batches:
            if analyser is None:
                analyser = Analyser(codec(name) if name in CODECS else None)
                if not as_json:
                    out.print(Text(_HEAD, style="italic"), soft_wrap=True)
            for record in records:
                facts = analyser.facts(record)
                if as_json:
                    say_json_line(out, facts)
                else:
                    out.print(line_of(facts), soft_wrap=True)
    except KeyboardInterrupt:
        return


_Batch = tuple[str | None, Iterable[WireRecord]]


def _of_file(port: str, file: Path, last: int | None) -> Iterator[_Batch]:
    log = open_wirelog(file)
    records = log.records(port)
    if port not in log.ports and not records:
        known = ", ".join(sorted(log.ports)) or "none"
        raise ConfigError(f"{log.path} has no port '{port}'", remedy=f"Ports in it: {known}.")
    yield log.ports.get(port, {}).get("codec"), records if last is None else records[max(0, len(records) - last) :]


def _of_lab(port: str, lab: str | None, last: int | None, *, once: bool) -> Iterator[_Batch]:
    with connect(lab) as client:
        after = -(_LAST if last is None else last) or None
        while True:
            found = client.wire_tail(port, after=after, limit=_PART)
            after = found["records"][-1].sequence if found["records"] else found["after"]
            yield found["codec"], found["records"]
            if len(found["records"]) < _PART:
                if once:
                    return
                block(_EVERY_S)


_HEAD = f"{'time':15}  {'since last':>11}  {'holder':34}  {'exchange':>8}     bytes   meaning"


def line_of(facts: dict[str, Any]) -> Text:
    """One record as a line for people: local time, how long after the last, who, which exchange, which way, what."""
    arrow, style = _ARROWS[facts["direction"]]
    when = datetime.fromtimestamp(facts["t_ns"] / 1e9).astimezone().strftime("%H:%M:%S.%f")
    exchange = f"#{facts['exchange']}" if facts["exchange"] else "–"
    line = Text()
    if facts["missing_before"]:
        line.append(f"… {facts['missing_before']:,} records are missing here\n", style="bold red")
    line.append(f"{when}  {_delta(facts['delta_s']):>11}  ", style="dim")
    line.append(f"{facts['holder'] or '(nobody)':34}  {exchange:>8}  ")
    line.append(f"{arrow}  ", style=style)
    line.append(escaped(facts["data"]) if facts["direction"] != "!" else facts["data"], style=style)
    if facts["meaning"]:
        line.append(f"   {facts['meaning']}", style="dim")
    return line


def _delta(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"+{seconds * 1e6:.0f} µs"
        if seconds < 1e-3
        else f"+{seconds * 1e3:.1f} ms"
        if seconds < 1
        else f"+{seconds:.2f} s"
    )


def escaped(data: str) -> str:
    """Bytes as a person reads them: text as it is, everything else by its escape; a long piece by its beginning."""
    shown = data[:_SHOWN].encode("latin-1").decode("latin-1").encode("unicode_escape").decode("ascii")
    return f"{shown} … ({len(data):,} bytes)" if len(data) > _SHOWN else shown
