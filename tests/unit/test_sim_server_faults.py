"""How faults are written, and what each does to a reply."""

from __future__ import annotations

import pytest

from duodaq.sim import Faults
from duodaq.sim._faults import Gremlin


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["jitter"], Faults(jitter_ms=(1.0, 20.0))),
        (["jitter=5-10"], Faults(jitter_ms=(5.0, 10.0))),
        (["jitter-ms=3"], Faults(jitter_ms=(3.0, 3.0))),
        (["stall"], Faults(stall=True)),
        (["drop=0.05", "garble=0.1"], Faults(drop=0.05, garble=0.1)),
        (["drop-next"], Faults(drop_next=1)),
        (["garble_next=4"], Faults(garble_next=4)),
        (["delay_s=0.5", "disconnect-after=7"], Faults(delay_s=0.5, disconnect_after=7)),
        ([], Faults()),
    ],
)
def test_faults_are_written_as_words(words: list[str], expected: Faults):
    assert Faults.parse(*words) == expected
    assert Faults.from_dict(expected.as_dict()) == expected


@pytest.mark.parametrize(("word", "hint"), [("explode", "there are: .*stall"), ("drop=often", "not a value")])
def test_a_wrong_word_is_refused_with_what_is_possible(word: str, hint: str):
    with pytest.raises(ValueError, match=hint):
        Faults.parse(word)


def test_without_faults_a_reply_passes_untouched():
    gremlin = Gremlin(Faults(), seed=1)
    assert gremlin.idle
    assert gremlin.spoil(b"0\r\n") == [(0.0, b"0\r\n")]


def test_jitter_splits_a_reply_within_its_range_and_keeps_every_byte():
    gremlin = Gremlin(Faults(jitter_ms=(1, 20)), seed=1)
    counts = set()
    for _ in range(200):
        pieces = gremlin.spoil(b"+1.2345E-3\r\n")
        assert b"".join(piece for _, piece in pieces) == b"+1.2345E-3\r\n"
        assert 0.001 / 3 <= pieces[0][0] <= 0.02
        counts.add(len(pieces))
    assert counts >= {2, 3}


def test_certain_faults_strike_the_next_replies_only():
    gremlin = Gremlin(Faults(drop_next=2, garble_next=1), seed=1)
    assert gremlin.spoil(b"1\r\n") == gremlin.spoil(b"1\r\n") == []
    ((_, damaged),) = gremlin.spoil(b"12345678\r\n")
    assert damaged != b"12345678\r\n"
    assert damaged.endswith(b"\r\n")
    assert gremlin.spoil(b"1\r\n") == [(0.0, b"1\r\n")]
    assert gremlin.done == {"drop": 2, "garble": 1}


def test_probable_faults_strike_at_about_their_rate_and_alike_for_the_same_seed():
    first, second = (Gremlin(Faults(drop=0.1), seed=4) for _ in range(2))
    kept = [bool(first.spoil(b"1\n")) for _ in range(1000)]
    assert kept == [bool(second.spoil(b"1\n")) for _ in range(1000)]
    assert 60 < first.done["drop"] < 140


def test_the_plug_is_pulled_after_as_many_replies_as_told():
    gremlin = Gremlin(Faults(disconnect_after=3), seed=1)
    assert [gremlin.pulls_plug() for _ in range(5)] == [False, False, True, False, False]
