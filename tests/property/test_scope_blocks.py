"""A waveform is exact to the byte, whatever it holds and however it comes in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.drivers import codec
from duodaq.drivers.scpi._codec import block_payload
from duodaq.sim import LocalTable
from duodaq.sim.scpi import make_scope, make_supply
from duodaq.sim.scpi._block import definite_block

CUTS = st.lists(st.integers(0, 400), max_size=8)
NASTY = st.lists(st.sampled_from([b"\n", b"#", b"#18", b";", b",", b'"', b"\r\n", b"\x00", b"\xff", b"A"]), max_size=40)
WORDS = (
    "*IDN?|DIG CHAN1|WAV:DATA?|WAV:PRE?;DATA?|WAV:FORM WORD|VOLT 3,(@1)|OUTP ON,(@1)|MEAS:VOLT? (@1:3)|XX?|SYST:ERR?"
)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(min(place, len(data)) for place in cuts)})
    return [data[first:last] for first, last in pairwise(places)]


@given(NASTY.map(b"".join), CUTS, st.sampled_from([None, 8]))
def test_a_block_with_line_feeds_and_signs_in_it_is_one_reply_and_exact(payload: bytes, cuts: list[int], digits):
    reply = definite_block(payload, digits=digits) + b"\n"
    framing = codec("scpi").expects_reply(b":WAV:DATA?\n")
    assert framing is not None
    found = [framing.feed(piece) for piece in pieces_of(reply, cuts)]
    assert [one for one in found if one is not None] == [reply]
    assert block_payload(reply) == payload


@given(NASTY.map(b"".join), CUTS)
def test_a_block_behind_a_preamble_is_one_reply(payload: bytes, cuts: list[int]):
    reply = b"0,0,1000,1,+1.0E-06,0;" + definite_block(payload, digits=8) + b"\n"
    framing = codec("scpi").expects_reply(b":WAV:PRE?;DATA?\n")
    assert framing is not None
    found = [framing.feed(piece) for piece in pieces_of(reply, cuts)]
    assert [one for one in found if one is not None] == [reply]


def instruments():
    for make in (make_scope, make_supply):
        simulator = make(None, LocalTable(0, shutter_open=True), 0)
        simulator.paced = False
        simulator.open_session(1, 100.0)
        yield simulator


SESSION = st.lists(st.sampled_from(WORDS.split("|")), max_size=8).map(lambda lines: "\n".join([*lines, ""]).encode())


@given(SESSION, CUTS)
def test_replies_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]):
    for whole, cut in zip(instruments(), instruments(), strict=True):
        expected = b"".join(reply.data for reply in whole.feed(data, 100.0, 1))
        assert b"".join(r.data for piece in pieces_of(data, cuts) for r in cut.feed(piece, 100.0, 1)) == expected


@given(st.lists(st.one_of(SESSION, st.binary(max_size=40)), max_size=6))
def test_no_bytes_upset_them(pieces: list[bytes]):
    for simulator in instruments():
        for piece in pieces:
            simulator.feed(piece, 100.0, 1)
        simulator.close_session(1)
        simulator.open_session(2, 100.0)
        assert b"".join(reply.data for reply in simulator.feed(b"*IDN?\n", 100.0, 2)).endswith(b"\n")
