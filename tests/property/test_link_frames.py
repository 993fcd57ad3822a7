from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.errors import DataError
from duodaq.link import FrameDecoder, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(values, max_size=5), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_frames_come_out_as_they_went_in_under_any_chunking(sent: list[Any], sizes: list[int]) -> None:
    stream, decoder, got, turn = b"".join(map(encode, sent)), FrameDecoder(), [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        got.extend(decoder.feed(stream[:size]))
        stream, turn = stream[size:], turn + 1
    assert got == sent


def test_a_frame_that_is_too_long_is_refused_at_its_length() -> None:
    with pytest.raises(DataError, match="at most 10"):
        list(FrameDecoder(max_frame=10).feed(encode("x" * 20)[:5]))


@given(st.binary(max_size=64))
def test_nonsense_is_refused_or_waits_and_nothing_else(nonsense: bytes) -> None:
    try:
        list(FrameDecoder().feed(nonsense))
    except DataError:
        return
