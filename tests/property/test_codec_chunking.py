from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.drivers import CODECS, codec
from duodaq.drivers.scpi._grammar import messages

ESP_QUERIES = st.lists(st.sampled_from([b"1TP", b"2MD?", b"TB?", b"1PA?", b"01tv"]), min_size=1, max_size=5)
VALUES = st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
BLOCKS = st.binary(max_size=40).map(lambda raw: b"#2%02d" % len(raw) + raw)


def feed(framing, data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    answers = [framing.feed(data[a:b]) for a, b in pairwise(edges)]
    return [answer for answer in answers if answer is not None]


@given(ESP_QUERIES, st.data(), st.lists(st.integers(0, 500)))
def test_esp300_replies_are_whole_under_any_chunking(queries, data, cuts) -> None:
    framing = codec("esp300").expects_reply(b";".join(queries) + b"\r")
    reply = b"".join(data.draw(VALUES) + b"\r\n" for _ in queries)
    assert framing is not None
    assert feed(framing, reply, cuts) == [reply]


@given(st.lists(st.one_of(st.just(b'+1.5E+00;"VOLT"'), BLOCKS), min_size=1, max_size=4), st.lists(st.integers(0, 500)))
def test_scpi_replies_are_whole_under_any_chunking_blocks_included(payloads, cuts) -> None:
    framing = codec("scpi").expects_reply(b"DATA?\n" * len(payloads))
    reply = b"".join(payload + b"\n" for payload in payloads)
    assert framing is not None
    assert feed(framing, reply, cuts) == [reply]


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=60))
def test_no_written_bytes_upset_a_codec(name, written) -> None:
    known = codec(name)
    assert isinstance(known.is_break_in(written), bool)
    assert isinstance(known.moves(written), bool)
    assert isinstance(known.destructive(written), bool)
    known.expects_reply(written)


@given(st.binary(max_size=60))
def test_a_block_hides_what_it_holds_from_the_scpi_grammar(payload) -> None:
    written = b"MEM:DATA 'a',#2%02d" % len(payload) + payload + b";*OPC?\n"
    assert [len(units) for units in messages(written)] == [2]
