import pytest

from duodaq.drivers.esp300 import EspCodec
from duodaq.drivers.esp300._codec import EspError, number, parse_error, parse_flag, parse_number, unit_factor
from duodaq.errors import ConfigError, ReplyFormatError
from duodaq.ports import Framing, PortCodec

CODEC: PortCodec = EspCodec()


def replies(written: bytes) -> int:
    framing = CODEC.expects_reply(written)
    return 0 if framing is None else count_lines(framing)


def count_lines(framing: Framing) -> int:
    for lines in range(1, 20):
        if framing.feed(b"1\r\n") is not None:
            return lines
    raise AssertionError("the framing never ends")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"1TP\r", 1),
        (b"01TP\r", 1),
        (b"1tp?\r\n", 1),
        (b"1MD?\r", 1),
        (b"TB?\r", 1),
        (b"VE?\r", 1),
        (b"*IDN?\r", 1),
        (b"1PA?\r", 1),
        (b"TS\r", 1),
        (b"1 P A 5.5 ; 1 W S 0 ; 1 M D ?\r", 1),
        (b"1TP;2TP;1MD?\r", 3),
        (b"1TP ; 2TP ; \r", 2),
        (b"1PA5.5\r", 0),
        (b"1OR\r", 0),
        (b"ST\r", 0),
        (b"\r", 0),
        (b"1VA?\r1AC?\r", 2),
    ],
)
def test_as_many_lines_are_expected_as_there_are_queries(written: bytes, expected: int) -> None:
    assert replies(written) == expected


@pytest.mark.parametrize("written", [b"ST\r", b"1ST\r", b"02ST\r\n", b"AB\r", b"1AB\r", b" st ; 2 st\r"])
def test_stop_and_abort_break_in(written: bytes) -> None:
    assert CODEC.is_break_in(written)


@pytest.mark.parametrize("written", [b"1TP\r", b"ST;1PA5\r", b"1STx?\r", b"\r", b"1MF\r", b""])
def test_nothing_else_breaks_in(written: bytes) -> None:
    assert not CODEC.is_break_in(written)


@pytest.mark.parametrize(
    "written", [b"1PA5\r", b"1pr-1\r", b"1OR\r", b"2OR1\r", b"1MV+\r", b"1MO\r", b"1TP;1PA5\r", b"1EX\r"]
)
def test_commands_that_may_turn_an_axis_count_as_moving(written: bytes) -> None:
    assert CODEC.moves(written)


@pytest.mark.parametrize("written", [b"1PA?\r", b"1TP\r", b"ST\r", b"1MF\r", b"1MO?\r", b"1VA4\r", b"1MV?\r"])
def test_queries_settings_and_stops_do_not_count_as_moving(written: bytes) -> None:
    assert not CODEC.moves(written)


def test_reading_the_error_queue_is_destructive() -> None:
    assert CODEC.destructive(b"TB?\r")
    assert CODEC.destructive(b"1TP;te?\r")
    assert not CODEC.destructive(b"1TP\r")


def test_stop_bytes_name_the_axis_by_its_number_and_stop_all_otherwise() -> None:
    assert CODEC.stop_bytes("2") == b"2ST\r"
    assert CODEC.stop_bytes(None) == b"ST\r"
    assert CODEC.stop_bytes("x") == b"ST\r"
    assert CODEC.is_break_in(b"2ST\r")


def test_error_entries_are_read_in_both_forms() -> None:
    assert parse_error(b"0, 451322, NO ERROR DETECTED\r\n") == EspError(0, "NO ERROR DETECTED")
    assert parse_error(b"113\r\n").axis == 1
    assert parse_error(b"204, 1, POSITIVE HARDWARE LIMIT\r\n").kind == 4
    assert parse_error(b"6, 1, COMMAND DOES NOT EXIST\r\n").axis is None


@pytest.mark.parametrize("reply", [b"", b"1.2.3\r\n", b"abc\r\n", b"1\r\n2\r\n"])
def test_what_is_not_a_number_is_refused_with_the_reply(reply: bytes) -> None:
    with pytest.raises(ReplyFormatError) as caught:
        parse_number(reply)
    assert caught.value.reply == reply


def test_numbers_are_written_without_exponents_and_needless_zeros() -> None:
    assert [number(value) for value in (12.5, 1e-7, -0.0, 25.0, 1e-5, -3.25)] == [
        "12.5",
        "0",
        "0",
        "25",
        "0.00001",
        "-3.25",
    ]


def test_flags_are_zero_or_one() -> None:
    assert parse_flag(b"1\r\n") is True
    assert parse_flag(b"0\r\n") is False
    with pytest.raises(ReplyFormatError):
        parse_flag(b"2\r\n")


def test_units_are_turned_into_those_the_controller_reports() -> None:
    assert unit_factor(2, "mm") == 1.0
    assert unit_factor(3, "mm") == pytest.approx(1000)
    assert unit_factor(4, "mm") == pytest.approx(1 / 25.4)
    assert unit_factor(9, "deg") == pytest.approx(0.017453292519943295)
    with pytest.raises(ConfigError, match="counts in deg"):
        unit_factor(7, "mm")
