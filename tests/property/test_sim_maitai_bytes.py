"""Whatever comes down its line and however it is cut, the Mai Tai simulator stays itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.sim import LocalTable
from duodaq.sim.maitai import make

LINES = "WAV?|WAV 820|READ:PCTW?|SHUT 1|SHUT 0|SHUT?|ON|OFF|SYST:ERR?|XX|WAV? SHUT?|*IDN?|TIM:WATC 0|MODE?"
session = st.lists(st.sampled_from(LINES.split("|")), max_size=12).map(lambda lines: "\r\n".join([*lines, ""]).encode())


def laser():
    simulator = make(model="MaiTai/warm", table=LocalTable(0), seed=0)
    simulator.paced = False
    simulator.open_session(0, 100.0)
    return simulator


@given(session, st.lists(st.integers(0, 120), max_size=6))
def test_replies_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]):
    expected = b"".join(reply.data for reply in laser().feed(data, 100.0))
    places = sorted({0, len(data), *(min(place, len(data)) for place in cuts)})
    cut = laser()
    replies = [reply.data for first, last in pairwise(places) for reply in cut.feed(data[first:last], 100.0)]
    assert b"".join(replies) == expected


@given(st.lists(st.one_of(session, st.binary(max_size=40)), max_size=8))
def test_no_bytes_upset_it(pieces: list[bytes]):
    simulator = laser()
    for piece in pieces:
        for reply in simulator.feed(piece, 100.0):
            assert reply.data.endswith((b"\n", b"\x11", b"\x13"))
    simulator.feed(b"\x11\n", 100.0)
    replies = simulator.feed(b"WAV?\n", 100.0)
    assert b"".join(reply.data for reply in replies).endswith(b"nm\n")
