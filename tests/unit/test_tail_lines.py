"""What a record of the wire looks like to who watches a port."""

from __future__ import annotations

import pytest

from duodaq.cli._tail import Analyser, escaped, line_of
from duodaq.drivers import codec
from duodaq.model import Direction, WireRecord


def record(sequence: int, direction: Direction, data: bytes, exchange: int = 1) -> WireRecord:
    return WireRecord(10**18 + sequence * 1_500_000, "p", direction, data, "v4.stage", exchange, None, sequence)


@pytest.mark.parametrize(
    ("name", "asked", "meant", "answer", "said"),
    [
        ("esp300", b"1TP\r", "axis 1: position?", b"5.32\r\n", "axis 1: position = 5.32"),
        ("esp300", b"1PA10\r", "axis 1: move to 10, moves or emits", b"", ""),
        ("esp300", b"ST\r", "stop, breaks in", b"", ""),
        ("esp300", b"TB?\r", "error?, reading takes it away", b"0, 4, NO ERROR\r\n", "error = 0, 4, NO ERROR"),
        ("scpi", b"*IDN?\n", "who is it?", b"a,b,c,d\n", ""),
        ("scpi", b"SYST:ERR?\n", "error queue?, reading takes it away", b'0,"No error"\n', ""),
        ("scpi", b"STRANGE?\n", "question", b"9.9E37\n", "overload"),
        ("scpi", b"OUTP ON\n", "output, moves or emits", b"", ""),
        ("scpi", b"WAV:DATA?\n", "question", b"#14abcd\n", "a block of 8 bytes"),
        ("newport1830c", b"W?\n", "wavelength?", b"0633\n", ""),
        ("newport1830c", b"Q?\n", "status?", b"12\n", "saturated, over range"),
    ],
)
def test_the_codec_says_what_bytes_mean(name: str, asked: bytes, meant: str, answer: bytes, said: str) -> None:
    analyser = Analyser(codec(name))
    assert analyser.facts(record(1, ">", asked))["meaning"] == meant
    if answer:
        assert analyser.facts(record(2, "<", answer))["meaning"] == said


def test_a_reply_in_pieces_is_understood_when_it_is_whole() -> None:
    analyser = Analyser(codec("esp300"))
    records = [record(1, ">", b"1TP\r"), *(record(2 + i, "<", part) for i, part in enumerate((b"5.", b"32", b"\r\n")))]
    said = [analyser.facts(one)["meaning"] for one in records]
    assert said == ["axis 1: position?", "", "", "axis 1: position = 5.32"]


def test_a_line_has_time_holder_exchange_direction_and_escaped_bytes() -> None:
    analyser = Analyser(codec("esp300"))
    analyser.facts(record(1, ">", b"1TP\r", 7))
    line = line_of(analyser.facts(record(2, "<", b"5.32\r\n", 7))).plain
    words = line[15:].split()
    assert words[:6] == ["+1.5", "ms", "v4.stage", "#7", "←", r"5.32\r\n"]
    assert line.endswith("   axis 1: position = 5.32")


def test_what_is_missing_is_said_before_the_line() -> None:
    analyser = Analyser(None)
    analyser.facts(record(1, ">", b"A\n"))
    assert line_of(analyser.facts(record(5, "<", b"B\n"))).plain.startswith("… 3 records are missing here\n")


def test_what_happened_is_told_in_words() -> None:
    line = line_of(Analyser(codec("scpi")).facts(record(1, "!", "µ lost".encode(), 0))).plain
    assert line.endswith("v4.stage" + " " * 26 + "         –  !  µ lost")


@pytest.mark.parametrize(
    ("data", "shown"),
    [(b"1TP\r\n", r"1TP\r\n"), (b"\x00\xff\\", r"\x00\xff\\"), (b"x" * 5000, "x" * 60 + " … (5,000 bytes)")],
)
def test_bytes_are_escaped_and_cut(data: bytes, shown: str) -> None:
    assert escaped(data.decode("latin-1")) == shown
