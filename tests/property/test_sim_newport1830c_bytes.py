"""Whatever comes down its line and however it is cut, the 1830-C simulator stays itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.sim import LocalTable
from duodaq.sim.newport1830c import make

WORDS = "D? Q? U3 U4 R5 R9 F1 E1 E0 Z1 Z0 S C CS W633 W? G0 XX D?Q? A1"
session = st.lists(st.sampled_from(WORDS.split()), max_size=12).map(lambda lines: "\n".join([*lines, ""]).encode())


def meter():
    simulator = make(model=None, table=LocalTable(0, shutter_open=True), seed=0)
    simulator.paced = False
    simulator.open_session(0, 100.0)
    return simulator


@given(session, st.lists(st.integers(0, 80), max_size=6))
def test_replies_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]):
    whole, cut = meter(), meter()
    expected = [reply.data for reply in whole.feed(data, 100.0)]
    places = sorted({0, len(data), *(min(place, len(data)) for place in cuts)})
    replies = [reply.data for first, last in pairwise(places) for reply in cut.feed(data[first:last], 100.0)]
    assert replies == expected


@given(st.lists(st.one_of(session, st.binary(max_size=40)), max_size=8))
def test_no_bytes_upset_it(pieces: list[bytes]):
    simulator = meter()
    for piece in pieces:
        for reply in simulator.feed(piece, 100.0):
            assert reply.data.endswith(b"\n")
    simulator.feed(b"\nE0\n", 100.0)
    (reply,) = simulator.feed(b"Q?\n", 100.0)
    assert 0 <= int(reply.data) < 256
