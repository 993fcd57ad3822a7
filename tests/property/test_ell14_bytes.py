"""Elliptec bytes in any pieces and any order: the simulator stays itself, and every frame finds its own exchange."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.drivers.ell14 import EllCodec, EllFraming
from duodaq.ports._books import PortBooks
from duodaq.ports._deferred import Deferred
from duodaq.ports._exchange import Exchange
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._wirelog import WireLog
from duodaq.sim import LocalTable
from duodaq.sim.ell14 import make

WORDS = "0in,1gs,2gp,0gv,1sv32,2sv10,0sj00000100,1gj,3gs,0zz,0ma0000,0st,1us,0ca0,xx,\r\n"
session = st.lists(st.sampled_from(WORDS.split(",")), max_size=12).map(lambda words: "".join(words).encode())
CUTS = st.lists(st.integers(0, 200), max_size=8)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(min(place, len(data)) for place in cuts)})
    return [data[first:last] for first, last in pairwise(places)]


def line():
    bus = make(model=None, table=LocalTable(0), seed=0)
    bus.open_session(0, 100.0)
    return bus


@given(session, CUTS)
def test_replies_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]):
    expected = b"".join(reply.data for reply in line().feed(data, 100.0))
    cut = line()
    assert b"".join(r.data for piece in pieces_of(data, cuts) for r in cut.feed(piece, 100.0)) == expected


@given(st.lists(st.one_of(session, st.binary(max_size=40)), max_size=8))
def test_no_bytes_upset_it(pieces: list[bytes]):
    bus = line()
    for piece in pieces:
        for reply in bus.feed(piece, 100.0):
            assert reply.data.endswith(b"\r\n")
    bus.power_cycle(200.0)
    assert [reply.data for reply in bus.feed(b"1gp", 200.0)] == [b"1PO00000000\r\n"]


FRAMES = st.permutations([b"0PO00000001\r\n", b"1PO00000002\r\n", b"2GS00\r\n", b"3BO00000009\r\n", b"1BS00\r\n"])


@given(FRAMES, CUTS)
def test_every_frame_finds_its_own_exchange_in_any_order_and_any_pieces(frames: list[bytes], cuts: list[int]):
    loop = asyncio.new_event_loop()
    try:
        deferred = Deferred("p", EllCodec(), PortBooks("p", WireLog(64)), loop)
        ended: dict[bytes, bytes] = {}
        for command in (b"0ma00000001", b"1ho0"):
            exchange = _exchange(command, ended)
            deferred.keep(exchange)
        hand = _exchange(b"2gs", ended)
        hand.sent = len(hand.request)
        reply, passed = None, b""
        for piece in pieces_of(b"".join(frames), cuts):
            left = deferred.sift(piece, None if reply else hand)
            assert hand.framing is not None
            found = None if reply else hand.framing.feed(left)
            reply, passed = reply or found, passed + (left if reply else b"")
        assert reply == b"2GS00\r\n"
        assert ended == {b"0ma00000001": b"0PO00000001\r\n", b"1ho0": b"1PO00000002\r\n"}
    finally:
        loop.close()


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"1GS00\r\n", b"2PO00000001\r\n"])), max_size=6), CUTS
)
def test_a_reply_is_whole_behind_whatever_others_said(before: list[bytes], cuts: list[int]):
    said = [frame for frame in before if frame.endswith(b"\r\n") and frame[:1] in b"12"]
    framing = EllFraming(b"0", (b"GS",))
    found = [framing.feed(piece) for piece in pieces_of(b"".join([*said, b"0GS09\r\n"]), cuts)]
    assert [one for one in found if one] == [b"0GS09\r\n"]
    assert framing.rest == b"".join(said)


def _exchange(command: bytes, ended: dict[bytes, bytes]) -> Exchange:
    def done(reply: bytes, error: BaseException | None) -> None:
        ended[command] = reply

    return Exchange(Ticket("a", Lane.NORMAL, lambda _: None), command, EllCodec().expects_reply(command), 1.0, done)
