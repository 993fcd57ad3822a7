"""Program messages of IEEE 488.2: cutting them out of a stream, and reading them."""

from __future__ import annotations

import pytest

from duodaq.sim.scpi import Command, CommandTree, MessageSplitter, ScpiFault, Unit, units
from duodaq.sim.scpi._argument import Args, scale
from duodaq.sim.scpi._grammar import Block, Expression, Number, Text, Word


def paths(message: bytes) -> list[tuple[str, ...]]:
    return [unit.path for unit in units(message)]


def code_of(message: bytes) -> int:
    with pytest.raises(ScpiFault) as caught:
        list(units(message))
    return caught.value.code


def test_a_header_without_colon_stays_at_the_level_of_the_one_before() -> None:
    assert paths(b"VOLT:NPLC 1;RANG 10;:FUNC?") == [("VOLT", "NPLC"), ("VOLT", "RANG"), ("FUNC",)]


def test_common_commands_do_not_change_the_level() -> None:
    assert paths(b"TRIG:SOUR IMM;*CLS;COUN 2") == [("TRIG", "SOUR"), ("*CLS",), ("TRIG", "COUN")]


def test_a_new_message_starts_at_the_root() -> None:
    assert paths(b"VOLT:NPLC 1") == [("VOLT", "NPLC")]
    assert paths(b"RANG 10") == [("RANG",)]


def test_every_kind_of_parameter_is_read() -> None:
    (unit,) = units(b'X 1, -2.5e-3 V, .5, MAX, "a""b;,\n", \'c\', (@1,3:5), #13a;\n, #H1F')
    assert unit.params == (
        Number(1.0),
        Number(-2.5e-3, "V"),
        Number(0.5),
        Word("MAX"),
        Text('a"b;,\n'),
        Text("c"),
        Expression("@1,3:5"),
        Block(b"a;\n"),
        Number(31.0),
    )


def test_channel_lists_expand_ranges() -> None:
    assert Expression("@1,3:5").channels() == (1, 3, 4, 5)
    with pytest.raises(ScpiFault):
        Expression("1+2").channels()


def test_carriage_return_is_white_space_and_empty_units_are_nothing() -> None:
    assert list(units(b" *IDN? ;; \r")) == [Unit(("*IDN",), query=True)]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"@", -101),
        (b"VOLT$ 1", -101),
        (b": VOLT 1", -102),
        (b"VOLT 1 2", -103),
        (b"VOLT 1,", -103),
        (b"VOLT ,1", -103),
        (b'FUNC"VOLT"', -111),
        (b"ABCDEFGHIJKLM 1", -112),
        (b"VOLT 1.2.3", -121),
        (b"VOLT +", -121),
        (b"VOLT AB?", -141),
        (b'FUNC "VOLT', -151),
        (b"DATA #3xx", -161),
        (b"DATA #15ab", -161),
        (b"ROUT (@1", -102),
        (b"VOLT #H" + b"F" * 400, -222),
    ],
)
def test_each_mistake_has_its_own_code(message: bytes, code: int) -> None:
    assert code_of(message) == code


def test_units_before_a_mistake_are_read() -> None:
    iterator = units(b"*CLS;VOLT 1 2;*RST")
    assert next(iterator).path == ("*CLS",)
    with pytest.raises(ScpiFault):
        next(iterator)


def test_a_line_feed_inside_a_block_does_not_end_the_message() -> None:
    splitter = MessageSplitter()
    assert splitter.feed(b"DATA #15a\nb") == []
    assert splitter.feed(b"\nc\n*IDN?\n") == [b"DATA #15a\nb\nc", b"*IDN?"]


def test_an_indefinite_block_ends_with_the_line() -> None:
    splitter = MessageSplitter()
    assert splitter.feed(b"DATA #0abc\n") == [b"DATA #0abc"]
    (unit,) = units(b"DATA #0abc")
    assert unit.params == (Block(b"abc"),)


def test_a_message_that_is_too_long_is_reported_and_the_next_one_is_whole() -> None:
    splitter = MessageSplitter(limit=16)
    assert splitter.feed(b"x" * 100) == []
    assert splitter.feed(b"yyy\n*IDN?\n") == [None, b"*IDN?"]
    assert splitter.rest == b""


def test_clear_forgets_half_a_message() -> None:
    splitter = MessageSplitter()
    splitter.feed(b"DATA #9")
    splitter.clear()
    assert splitter.feed(b"*RST\n") == [b"*RST"]


def test_short_and_long_forms_are_the_same_and_nothing_in_between_is() -> None:
    command = Command("[SENSe:]VOLTage[:DC]:RANGe[:UPPer]", query=lambda _: "1")
    tree = CommandTree([command])
    for header in (b"VOLT:RANG?", b"sense:voltage:dc:range:upper?", b"SENS:VOLT:RANGE?", b"VOLT1:RANG?"):
        (unit,) = units(header)
        assert tree.find(unit)[0] is command
    for header, code in ((b"VOLTA:RANG?", -113), (b"VOLT:RANG 1", -113), (b"VOLT2:RANG?", -114), (b"VOLT?", -113)):
        (unit,) = units(header)
        with pytest.raises(ScpiFault) as caught:
            tree.find(unit)
        assert caught.value.code == code


def test_numbered_nodes_hand_on_their_suffix() -> None:
    tree = CommandTree([Command("READ:DIODe#:TEMPerature", query=lambda _: "1")])
    for header, suffix in ((b"READ:DIOD2:TEMP?", 2), (b"READ:DIODE:TEMPERATURE?", 1)):
        (unit,) = units(header)
        assert tree.find(unit)[2] == (suffix,)


@pytest.mark.parametrize(
    ("number", "unit", "value"),
    [
        (Number(5, "MV"), "V", 5e-3),
        (Number(1, "MOHM"), "OHM", 1e6),
        (Number(2, "KOHM"), "OHM", 2e3),
        (Number(3, "MHZ"), "HZ", 3e6),
        (Number(7, "US"), "S", 7e-6),
        (Number(4), "V", 4.0),
    ],
)
def test_suffixes_scale(number: Number, unit: str, value: float) -> None:
    assert scale(number, unit) == pytest.approx(value)


def test_wrong_suffixes_are_refused() -> None:
    for number, unit, code in ((Number(1, "A"), "V", -131), (Number(1, "V"), "", -138)):
        with pytest.raises(ScpiFault) as caught:
            scale(number, unit)
        assert caught.value.code == code


def test_parameters_are_checked_as_they_are_taken() -> None:
    def code(call: object) -> int:
        with pytest.raises(ScpiFault) as caught:
            call()
        return caught.value.code

    assert Args([Word("MIN")]).number(1, 5) == 1
    assert Args([Word("DEFAULT")]).number(1, 5, 3) == 3
    assert Args([Number(2.5)]).integer(0, 5) == 2
    assert Args([Word("ON")]).boolean() is True
    assert Args([Number(0)]).boolean() is False
    assert Args([Word("IMMEDIATE")]).word("IMMediate", "BUS") == "IMM"
    assert code(lambda: Args([]).number(0, 1)) == -109
    assert code(lambda: Args([Number(2)]).number(0, 1)) == -222
    assert code(lambda: Args([Text("a")]).number(0, 1)) == -104
    assert code(lambda: Args([Word("MAYBE")]).boolean()) == -224
    assert code(lambda: Args([Number(1)]).end()) == -108
