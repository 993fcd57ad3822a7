from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from duodaq.ports import Block488, Framing, Lines, Terminated, TerminatedOrBlock

text = st.binary(max_size=12).map(lambda raw: bytes(byte for byte in raw if byte not in b'\n;,"#'))


def block(payload: bytes) -> bytes:
    length = str(len(payload)).encode()
    return b"#" + str(len(length)).encode() + length + payload


units = st.one_of(text, st.binary(max_size=40).map(block), text.map(lambda words: b'"' + words + b';#9,"'))
messages = st.lists(units, min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([b";", b","]).map(lambda joint: joint.join(parts) + b"\n")
)
cuts = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def fed(framing: Framing, stream: bytes, sizes: list[int]) -> list[bytes]:
    """All whole replies of `stream`, fed in chunks of `sizes`, over and over; what is behind one begins the next."""
    replies: list[bytes] = []
    at = turn = 0
    while at < len(stream):
        chunk = stream[at : at + sizes[turn % len(sizes)]]
        at, turn = at + len(chunk), turn + 1
        while (reply := framing.feed(chunk)) is not None:
            replies.append(reply)
            chunk = framing.rest
            framing.reset()
            if not chunk:
                break
    return replies


@given(st.lists(messages, min_size=1, max_size=4), cuts)
def test_scpi_messages_are_told_apart_under_any_chunking(stream: list[bytes], sizes: list[int]) -> None:
    assert fed(TerminatedOrBlock(), b"".join(stream), sizes) == stream


@given(st.lists(st.binary(max_size=60).map(lambda payload: block(payload) + b"\n"), min_size=1, max_size=4), cuts)
def test_blocks_are_told_apart_whatever_they_contain(stream: list[bytes], sizes: list[int]) -> None:
    assert fed(Block488(), b"".join(stream), sizes) == stream


@given(st.lists(text.map(lambda line: line.replace(b"\r", b"") + b"\r\n"), min_size=1, max_size=6), cuts)
def test_lines_are_told_apart_under_any_chunking(stream: list[bytes], sizes: list[int]) -> None:
    assert fed(Terminated(b"\r\n"), b"".join(stream), sizes) == stream
    whole = [b"".join(stream[at : at + 2]) for at in range(0, len(stream) - 1, 2)]
    assert fed(Lines(2, b"\r\n"), b"".join(stream), sizes) == whole
