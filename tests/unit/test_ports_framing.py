from __future__ import annotations

import pytest

from duodaq.errors import ReplyFormatError
from duodaq.ports import Block488, FixedLength, Framing, Lines, Terminated, TerminatedOrBlock

WHOLE: list[tuple[Framing, bytes]] = [
    (Terminated(b"\n"), b"+1.5E-9\n"),
    (Terminated(b"\r\n"), b"5.32\r\n"),
    (Lines(3, b"\r\n"), b"1\r\n2\r\n3\r\n"),
    (FixedLength(4), b"\n\n\n\n"),
    (Block488(), b"#15a\nb\nc\n"),
    (Block488(b""), b"#3003\n\n\n"),
    (Block488(), b"#0abc\n"),
    (TerminatedOrBlock(), b'"a;#19";+1\n'),
    (TerminatedOrBlock(), b"#13\n\n\n\n"),
    (TerminatedOrBlock(), b"1;#12\n\n;#11\n;2\n"),
    (TerminatedOrBlock(), b"1,#12\n\n,2\n"),
    (TerminatedOrBlock(), b"#H1F;#B101\n"),
    (TerminatedOrBlock(), b"#0abc\n"),
    (TerminatedOrBlock(b"\r\n"), b"#12\r\n\r\n"),
]


@pytest.mark.parametrize(("framing", "reply"), WHOLE, ids=[f"{type(f).__name__}-{r!r}" for f, r in WHOLE])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_reply_ends_where_it_ends_in_chunks_of_any_size(framing: Framing, reply: bytes, size: int) -> None:
    framing.reset()
    stream = reply + b"NEXT"
    got = None
    for at in range(0, len(stream), size):
        got = framing.feed(stream[at : at + size])
        if got is not None:
            assert got == reply
            assert framing.rest == stream[len(reply) : at + size]
            return
    assert got == reply


@pytest.mark.parametrize("framing", [Terminated(b"\n", 10), TerminatedOrBlock(b"\n", 10), Lines(2, b"\n", 10)])
def test_a_reply_longer_than_allowed_is_refused(framing: Framing) -> None:
    with pytest.raises(ReplyFormatError, match="longer than 10"):
        framing.feed(b"x" * 11)


@pytest.mark.parametrize("data", [b"12\n", b"#1a\n", b"#x", b"#11ab\n"])
def test_what_is_no_block_is_refused_where_a_block_belongs(data: bytes) -> None:
    with pytest.raises(ReplyFormatError):
        Block488().feed(data)


@pytest.mark.parametrize(("framing", "reply"), WHOLE, ids=[f"{type(f).__name__}-{r!r}" for f, r in WHOLE])
def test_a_framing_can_be_used_again(framing: Framing, reply: bytes) -> None:
    for _ in range(2):
        framing.reset()
        assert framing.feed(reply[:1]) is None or len(reply) == 1
        assert framing.feed(reply[1:]) == reply
