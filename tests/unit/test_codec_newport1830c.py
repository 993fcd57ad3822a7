import pytest

from duodaq.drivers.newport1830c import MeterStatus, Newport1830cCodec
from duodaq.drivers.newport1830c._codec import parse_integer, parse_reading, parse_status
from duodaq.errors import ReplyFormatError
from duodaq.ports import PortCodec

CODEC: PortCodec = Newport1830cCodec()


@pytest.mark.parametrize("written", [b"D?\n", b"q?\n", b"W?\r\n", b" U? \n"])
def test_a_letter_and_a_question_mark_is_answered_with_one_line(written: bytes) -> None:
    framing = CODEC.expects_reply(written)
    assert framing is not None
    assert framing.feed(b"+.75E-9") is None
    assert framing.feed(b"\n") == b"+.75E-9\n"


@pytest.mark.parametrize("written", [b"W0633\n", b"E0\n", b"C\n", b"\n", b"DD?\n"])
def test_settings_are_not_answered(written: bytes) -> None:
    assert CODEC.expects_reply(written) is None


def test_the_meter_neither_moves_nor_is_broken_into() -> None:
    assert not CODEC.moves(b"Z1\n")
    assert not CODEC.is_break_in(b"C\n")
    assert CODEC.stop_bytes(None) is None


@pytest.mark.parametrize(
    ("reply", "value"), [(b"5E-9\n", 5e-9), (b"+.75E-9\n", 0.75e-9), (b"-12.3\r\n", -12.3), (b"0\n", 0)]
)
def test_readings_are_numbers_as_the_meter_writes_them(reply: bytes, value: float) -> None:
    assert parse_reading(reply) == pytest.approx(value)


@pytest.mark.parametrize("reply", [b"\n", b"E-9\n", b"+.75E\n", b"D?\n", b"1 2\n"])
def test_a_garbled_reading_is_refused(reply: bytes) -> None:
    with pytest.raises(ReplyFormatError):
        parse_reading(reply)


def test_a_status_byte_is_its_bits() -> None:
    assert parse_status(b"132\n") == MeterStatus.READ_DONE | MeterStatus.SATURATED
    assert parse_status(b"1\n").refused
    assert parse_status(b"2\n").refused
    assert not parse_status(b"188\n").refused
    with pytest.raises(ReplyFormatError):
        parse_status(b"256\n")


def test_wavelengths_may_be_zero_padded() -> None:
    assert parse_integer(b"0633\n") == 633
