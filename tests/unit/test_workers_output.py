"""What drivers print, read from a real pipe: much of it costs its driver next to nothing, and the log little."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.workers._output import LONGEST_LINE, MOST_LINES_PER_S, OutputReader


class Said(logging.Handler):
    """All that is logged of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        said: Any = record.msg
        if said["event"] == "output":
            self.lines.append(said["line"])
        elif said["event"] == "output left out":
            self.left_out += said["lines"]


@pytest.fixture
def said() -> Iterator[Said]:
    handler, logger = Said(), logging.getLogger("duodaq.workers.output")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def write_all(fd: int, data: bytes) -> float:
    """Write as a driver's thread does; how long that took, in seconds."""
    begun_s, rest = monotonic_s(), memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return monotonic_s() - begun_s


@pytest.mark.alone("a print of 50 MB may take its driver a second")
async def test_a_print_of_50_mb_keeps_its_driver_no_longer_than_a_second_and_is_counted(said: Said) -> None:
    read, write = os.pipe()
    output = OutputReader(read, "w")
    line = b"so much to say " * 33 + b"\n"
    number = 50_000_000 // len(line)
    took_s = await asyncio.to_thread(write_all, write, line * number)
    os.close(write)
    await pause(0.02)
    output.close()
    assert took_s < 1.0
    assert len(said.lines) + output.left_out == number
    assert said.left_out == output.left_out
    assert len(said.lines) <= MOST_LINES_PER_S * 3


async def test_a_flood_leaves_the_loop_to_others(said: Said) -> None:
    read, write = os.pipe()
    output = OutputReader(read, "w")
    writing = asyncio.create_task(asyncio.to_thread(write_all, write, b"\n" * 20_000_000))
    late_s: list[float] = []
    while not writing.done():
        begun_s = monotonic_s()
        await pause(0.001)
        late_s.append(monotonic_s() - begun_s - 0.001)
    await pause(0.02)
    os.close(write)
    output.close()
    assert sorted(late_s)[len(late_s) // 2] < 0.005
    assert output.left_out >= 20_000_000 - 300 * 3


async def test_lines_are_logged_whole_whatever_pieces_they_come_in(said: Said) -> None:
    read, write = os.pipe()
    output = OutputReader(read, "w")
    for piece in (b"on", b"e\ntw", b"o\n", b"\n", b"thr\xffee\nlast"):
        os.write(write, piece)
        await pause(0.005)
    os.close(write)
    output.close()
    output.close()
    assert said.lines == ["one", "two", "thr\ufffdee", "last"]
    assert output.left_out == 0


async def test_what_was_left_out_is_said_though_nothing_more_is_printed(said: Said) -> None:
    read, write = os.pipe()
    output = OutputReader(read, "w")
    os.write(write, b"x\n" * (MOST_LINES_PER_S + 7))
    limit = Deadline(3.0)
    while not said.left_out:
        assert not limit.passed
        await pause(0.01)
    assert (len(said.lines), said.left_out) == (MOST_LINES_PER_S, 7)
    os.close(write)
    output.close()
    assert said.left_out == output.left_out == 7


async def test_a_line_without_end_takes_no_more_memory_than_a_long_one(said: Said) -> None:
    read, write = os.pipe()
    output = OutputReader(read, "w")
    await asyncio.to_thread(write_all, write, b"x" * 3_000_000 + b"end")
    await pause(0.02)
    assert len(output._rest) <= LONGEST_LINE
    os.close(write)
    output.close()
    assert len(said.lines) == 1
    assert said.lines[0].endswith("end")
