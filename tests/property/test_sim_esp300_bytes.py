"""Whatever comes down its line and however it is cut, the ESP300 simulator stays itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duodaq.sim import LocalTable
from duodaq.sim.esp300 import make
from duodaq.sim.esp300._grammar import WORDS as WORDS_KNOWN

WORDS = """
1TP 2MD? 1MO 2MF 1PA3.5 1PR-1 TE? TB? 1VA12 XX TP 1OR2 ST 1WS5 TS 1MV+ 3MT- AB WT10 1ZB5H 1SN3 *IDN? 1PA1E-3 1DH 9TP
1SL-40;1PA-39 RS 1WP2
"""
commands = st.sampled_from(WORDS.split())
session = st.lists(commands, max_size=12).map(lambda lines: "\r\n".join([*lines, ""]).encode())


PARAMETERS = "0 1 -1 1.5 1,2 + - 5H FF 1E999 -1E999 1E11 1E-400 ? +5"
parameters = st.sampled_from(["", *PARAMETERS.split()])
any_command = st.builds(
    "{}{}{}".format, st.sampled_from(["", "1", "2"]), st.sampled_from(sorted(WORDS_KNOWN)), parameters
)
odd_session = st.lists(any_command, max_size=8).map(lambda lines: "\r".join(["1MO;2MO", *lines, ""]).encode())


def controller(table: LocalTable | None = None):
    simulator = make(model=None, table=table or LocalTable(0), seed=0)
    simulator.paced = False
    simulator.open_session(0, 100.0)
    return simulator


@given(session, st.lists(st.integers(0, 200), max_size=6))
def test_replies_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]):
    whole, cut = controller(), controller()
    expected = [reply.data for reply in whole.feed(data, 100.0)]
    places = sorted({0, len(data), *(min(place, len(data)) for place in cuts)})
    pieces = [data[first:last] for first, last in pairwise(places)]
    replies = [reply.data for piece in pieces for reply in cut.feed(piece, 100.0)]
    assert replies == expected
    assert cut.tally.produced == whole.tally.produced


@given(
    st.lists(st.one_of(session, odd_session, st.binary(max_size=40)), max_size=6), st.lists(st.floats(0, 3), max_size=6)
)
def test_no_bytes_at_any_time_upset_it_and_every_reply_is_a_line(pieces: list[bytes], waits: list[float]):
    table = LocalTable(0)
    simulator, now_s = controller(table), 100.0
    for piece, wait_s in zip(pieces, [*waits, *[0.5] * 6], strict=False):
        replies = simulator.feed(piece, now_s)
        until_s = now_s + wait_s
        for _ in range(100):
            due_s = simulator.due_at_s()
            if due_s is None or due_s > until_s:
                break
            now_s = max(now_s, due_s)
            replies += simulator.due(now_s)
        else:
            raise AssertionError("it wants to be called again and again without getting anywhere")
        now_s = max(now_s, until_s)
        for reply in replies:
            assert reply.data.endswith(b"\r\n")
            assert reply.data.count(b"\n") == 1
    for axis in (1, 2):
        assert abs(table.motion(axis).at(now_s)[0]) <= 26 + 1e-6
