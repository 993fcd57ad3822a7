"""However a stream is cut into reads, the messages in it are the same; and nothing a client sends breaks the meter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.sim import LocalTable
from duodaq.sim.scpi import MessageSplitter, make
from duodaq.sim.scpi._grammar import Block, units

words = st.sampled_from(
    [b"*IDN?", b"FUNC?", b'FUNC "VOLT"', b"VOLT:RANG 10", b"READ?", b"*OPC", b":TRIG:COUN MAX", b"BAD:ONE 'x'", b";;"]
)
blocks = st.binary(max_size=40).map(lambda data: b"DATA #2%02d" % len(data) + data)
messages = st.lists(st.one_of(words, blocks), max_size=8)
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=200)


@given(messages, cuts)
def test_messages_do_not_depend_on_how_the_stream_is_cut(sent: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(message + b"\n" for message in sent)
    whole, pieces = MessageSplitter(), MessageSplitter()
    expected = whole.feed(stream)
    found: list[bytes | None] = []
    at, index = 0, 0
    while at < len(stream):
        size = sizes[index % len(sizes)]
        found += pieces.feed(stream[at : at + size])
        at, index = at + size, index + 1
    assert found == expected == sent


@given(st.binary(max_size=99))
def test_a_block_comes_out_as_it_went_in(payload: bytes) -> None:
    message = b"DATA #2%02d" % len(payload) + payload
    (cut,) = MessageSplitter().feed(message + b"\n")
    assert cut is not None
    (unit,) = units(cut)
    assert unit.params == (Block(payload),)


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=30), words), max_size=10))
def test_the_meter_survives_anything_and_still_answers(garbage: list[bytes]) -> None:
    meter = make("34465A", LocalTable(0), 0)
    meter.paced = False
    meter.open_session(0, 0.0)
    for data in garbage:
        meter.feed(data + b"\n", 0.0)
    meter.power_cycle(1.0)
    meter.open_session(0, 1.0)
    out = meter.feed(b"*IDN?\n", 1.0)
    assert [reply.data[:8] for reply in out] == [b"Keysight"]


@given(st.floats(0.0, 1000.0))
def test_the_range_always_holds_what_was_asked_for(wanted: float) -> None:
    meter = make("34401A", LocalTable(0), 0)
    meter.open_session(0, 0.0)
    (reply,) = meter.feed(f"VOLT:RANG {wanted!r};RANG?\n".encode(), 0.0)
    assert float(reply.data) >= wanted * (1 - 1e-9)
