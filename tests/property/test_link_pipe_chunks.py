"""However the bytes of a link are cut, the same messages are heard; and what is none ends it, once."""

from __future__ import annotations

import asyncio
import socket
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.clock import pause
from duodaq.link import Pipe

messages = st.lists(st.binary(max_size=60), max_size=12)
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=20)


async def hear(data: bytes, sizes: list[int]) -> tuple[list[bytes], list[str]]:
    heard: list[bytes] = []
    lost: list[str] = []
    over = asyncio.Event()

    def end(why: str) -> None:
        lost.append(why)
        over.set()

    here, there = socket.socketpair()
    with here, there:
        pipe = Pipe(here, bytes, bytes, heard.append, end, max_message=1000)
        pipe.open()
        begin = turn = 0
        while begin < len(data) and not pipe.closed:
            size = sizes[turn % len(sizes)]
            there.send(data[begin : begin + size])
            begin, turn = begin + size, turn + 1
            for _ in range(3):
                await pause(0.0)
        there.close()
        await asyncio.wait_for(over.wait(), 5.0)
    return heard, lost


@settings(max_examples=60, deadline=None)
@given(messages, cuts)
def test_messages_are_heard_whole_however_they_are_cut(sent: list[bytes], sizes: list[int]) -> None:
    data = b"".join(struct.pack("<I", len(one)) + one for one in sent)
    assert asyncio.run(hear(data, sizes)) == (sent, [""])


@settings(max_examples=60, deadline=None)
@given(messages, st.integers(1, 30), cuts)
def test_a_message_cut_off_by_the_end_is_not_heard(sent: list[bytes], missing: int, sizes: list[int]) -> None:
    data = b"".join(struct.pack("<I", len(one)) + one for one in [*sent, b"x" * 30])[:-missing]
    assert asyncio.run(hear(data, sizes)) == (sent, ["it ended in the middle of a message"])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), cuts)
def test_garbage_ends_it_once_and_nothing_else(data: bytes, sizes: list[int]) -> None:
    heard, lost = asyncio.run(hear(data, sizes))
    assert len(lost) == 1
    assert data.startswith(b"".join(struct.pack("<I", len(one)) + one for one in heard))
