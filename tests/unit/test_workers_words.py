"""What a worker says beside its answers: output, log lines, parameters; and who answers at a line after its death."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.errors import DataError, LifecycleError
from duodaq.model import InstrumentDefinition, ParameterEntry, PortDefinition
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedCodec, ScriptedTransport
from duodaq.workers import _output
from duodaq.workers._identity import impostors, learn_identities
from duodaq.workers._log_line import LONGEST_TEXT, MOST_PER_S, LogLine, log_here
from duodaq.workers._messages import Log, Put, Stale, decode_from_worker, encode, parcel, unpack
from duodaq.workers._mirror import ParameterMirror
from duodaq.workers._output import LONGEST_LINE, MOST_LINES_PER_S, OutputReader


class Said:
    """Stands in for the log: what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out = 0

    def info(self, _: str, *, line: str, worker: str) -> None:
        assert worker == "w"
        self.lines.append(line)

    def warning(self, _: str, *, lines: int, worker: str) -> None:
        self.left_out += lines


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    made = Said()
    monkeypatch.setattr(_output, "_log", made)
    return made


async def until(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await pause(0.002)


async def read(said: Said, *pieces: bytes) -> None:
    """Have `pieces` printed and read to their end."""
    end, printing = os.pipe()
    reader = OutputReader(end, "w")
    for piece in pieces:
        os.write(printing, piece)
        await pause(0.015)
    os.close(printing)
    await pause(0.015)
    reader.close()
    reader.close()


async def test_output_is_logged_line_by_line_however_it_comes(said: Said) -> None:
    await read(said, b"one\ntw", b"o\n\n  \nthr", b"ee")
    assert said.lines == ["one", "two", "three"]


async def test_binary_output_is_made_readable(said: Said) -> None:
    await read(said, b"\xff\x00\xfe\nok\n")
    assert said.lines == ["\ufffd\x00\ufffd", "ok"]


async def test_a_line_without_end_keeps_no_more_than_its_last_part(said: Said) -> None:
    await read(said, *[b"x" * 60_000] * 5, b"end\nnext\n")
    assert [len(line) for line in said.lines] == [LONGEST_LINE, 4]


async def test_of_a_flood_a_few_lines_are_logged_and_the_rest_is_counted(said: Said) -> None:
    await read(said, b"".join(b"%d\n" % number for number in range(5000)))
    assert said.lines == [str(number) for number in range(MOST_LINES_PER_S)]
    assert said.left_out == 5000 - MOST_LINES_PER_S


async def test_of_a_flood_no_more_is_read_in_one_go_than_is_good_for_the_loop(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "EVERY_S", 60.0)
    end, printing = os.pipe()
    os.set_blocking(printing, False)
    reader, taken = OutputReader(end, "w"), 0
    for _ in range(40):
        with contextlib.suppress(BlockingIOError):
            taken += os.write(printing, b"y\n" * 30_000)
        await pause(0.001)
    assert taken <= _output.CHUNK + _output.PIPE + 65_536  # what was read before the rest, and what the pipe holds
    os.close(printing)
    reader.close()


async def test_of_many_lines_no_more_are_logged_in_one_go_than_is_good_for_the_loop(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "EVERY_S", 60.0)
    end, printing = os.pipe()
    reader = OutputReader(end, "w")
    os.write(printing, b"".join(b"%d\n" % number for number in range(50)))
    await until(lambda: said.lines)
    await pause(0.005)
    assert said.lines == [str(number) for number in range(_output.LINES_AT_ONCE)]
    os.close(printing)
    reader.close()
    assert said.lines == [str(number) for number in range(50)]


async def test_many_lines_are_all_logged_in_their_order_though_nothing_more_is_printed(said: Said) -> None:
    end, printing = os.pipe()
    reader = OutputReader(end, "w")
    os.write(printing, b"".join(b"%d\n" % number for number in range(50)))
    await until(lambda: len(said.lines) >= 50)
    assert said.lines == [str(number) for number in range(50)]
    os.close(printing)
    reader.close()


def carried(log: Callable[[logging.Logger], None]) -> list[Log]:
    """What of that reaches the manager."""
    sent: list[Log] = []
    logger = logging.Logger("duodaq.test")
    logger.addHandler(LogLine(lambda message: sent.append(decode_from_worker(encode(message)))))
    log(logger)
    return sent


def test_a_line_of_the_log_arrives_with_its_facts_and_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    lines = carried(lambda logger: logger.warning({"event": "hot", "kelvin": 300, "of": ("a", 1)}))
    with caplog.at_level(logging.INFO, "duodaq"):
        logging.getLogger("duodaq").addHandler(caplog.handler)
        try:
            log_here(lines[0], "w")
        finally:
            logging.getLogger("duodaq").removeHandler(caplog.handler)
    record = caplog.records[-1]
    assert record.levelno == logging.WARNING
    assert record.msg == {"worker": "w", "event": "hot", "kelvin": 300, "of": "('a', 1)"}


def test_a_flood_of_lines_is_cut_and_what_was_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(logger: logging.Logger) -> None:
        for second in (5, 6):
            for _ in range(MOST_PER_S + 50):
                record = logger.makeRecord("duodaq.test", 20, "", 0, "line %d", (1,), None)
                record.created = float(second)
                logger.handle(record)

    lines = carried(flood)
    assert len(lines) == 2 * MOST_PER_S


def test_a_line_that_is_none_is_refused() -> None:
    with pytest.raises(DataError):
        log_here(Log("duodaq.x", 50, parcel([1])), "w")


ENTRY = ParameterEntry("stage", "x.position", 1.0, "mm", 5, 4, "v4")


def test_what_is_put_is_seen_here_and_sent() -> None:
    sent: list[Any] = []
    mirror = ParameterMirror(sent.append, [])
    mirror.put("v2", "dmm", "nplc", (1, 2), "")
    entry = mirror.get("dmm", "nplc")
    assert entry is not None
    assert (entry.value, entry.version, entry.owner) == ((1, 2), 1, "v2")
    mirror.mark_stale("v2", "dmm")
    assert [type(message) for message in sent] == [Put, Stale]


def test_what_the_other_side_owns_and_what_does_not_travel_change_nothing() -> None:
    sent: list[Any] = []
    mirror = ParameterMirror(sent.append, [ENTRY])
    with pytest.raises(LifecycleError, match="belongs to v4"):
        mirror.put("v2", "stage", "x.position", 2.0)
    with pytest.raises(DataError):
        mirror.put("v4", "stage", "x.position", (n for n in ()))
    assert mirror.get("stage", "x.position") == ENTRY
    assert sent == []


def test_of_what_has_moved_here_every_entry_may_be_written_until_it_moves_out() -> None:
    sent: list[Any] = []
    mirror = ParameterMirror(sent.append, [ENTRY])
    mirror.moved_in("stage")
    mirror.heard(ParameterEntry("stage", "x.velocity", parcel(3), "mm/s", 6, 1, "v4", stale=True))
    for name in ("x.position", "x.velocity"):
        assert mirror.put("v2", "stage", name, 2.0).owner == "v2"
    assert [type(message) for message in sent] == [Put, Put]
    mirror.moved_out("stage")
    mirror.heard(ParameterEntry("stage", "x.position", parcel(7), "mm", 6, 9, "v4"))
    with pytest.raises(LifecycleError, match="belongs to v4"):
        mirror.put("v2", "stage", "x.position", 2.0)


def test_the_managers_word_is_the_last() -> None:
    mirror = ParameterMirror(lambda _: None, [ENTRY])
    mirror.heard(ParameterEntry("stage", "x.position", parcel((1, 2)), "mm", 6, 9, "v4"))
    entry = mirror.get("stage", "x.position")
    assert entry is not None
    assert (entry.value, entry.version) == ((1, 2), 9)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(b"ACME 1\n", None), (b"OTHER 2\n", "another device answers"), (None, "does not say who it is")],
)
async def test_to_another_device_nothing_is_written(answer: bytes | None, why: str | None) -> None:
    broker, answers = Broker(), {b"ID?": b"ACME 1\n"}
    line = ScriptedTransport(lambda said: answers.get(said))
    facts = PortDefinition("p", serial={"path": "x"}, timeout_s=0.1, options={"quiet_s": 0.01})
    await broker.add(facts, ScriptedCodec(longest_reply_s=0.05), line)
    await broker.open("p")
    meters = tuple(InstrumentDefinition(name, "v2", "a:B", port=port) for name, port in (("m", "p"), ("n", None)))
    assert await impostors(broker, meters) == {}  # nobody knows yet who it was
    await learn_identities(broker, meters)
    answers.pop(b"ID?")
    if answer is not None:
        answers[b"ID?"] = answer
    strange = await impostors(broker, meters)
    assert set(strange) == (set() if why is None else {"m"})
    assert why is None or why in strange["m"]
    assert set(line.lines) <= {b"ID?", b""}
    answers[b"ID?"] = b"ACME 1\n"
    assert await impostors(broker, meters) == {}  # the first one is still the right one
    await broker.aclose()


def test_a_line_without_end_is_cut_and_says_by_how_much() -> None:
    sent: list[Any] = []
    handler = LogLine(sent.append)
    long = "x" * (LONGEST_TEXT + 50_000_000)
    for said in (long, {"event": "read", "reply": long}):
        handler.emit(logging.makeLogRecord({"name": "duodaq.x", "levelno": logging.INFO, "msg": said}))
    assert all(len(encode(line)) < LONGEST_TEXT + 1000 for line in sent)
    assert all("(50000000 characters cut)" in str(unpack(line.event)) for line in sent)
