import pytest

from duodaq.drivers.maitai import MaiTaiCodec, parse_error, parse_flag, parse_quantity
from duodaq.errors import ReplyFormatError
from duodaq.ports import PortCodec

CODEC: PortCodec = MaiTaiCodec()


@pytest.mark.parametrize("written", [b"WAV?\n", b"read:wavelength?\r\n", b"*IDN?\r", b"READ:PLAS:DIOD1:CURR?\n"])
def test_a_query_is_answered_with_one_line(written: bytes) -> None:
    framing = CODEC.expects_reply(written)
    assert framing is not None
    assert framing.feed(b"820") is None
    assert framing.feed(b"nm\n") == b"820nm\n"


@pytest.mark.parametrize("written", [b"WAV 820\n", b"SHUT 1\n", b"ON\n", b"\n", b"TIM:WATC 3\n", b"WAV 8?\n"])
def test_settings_are_not_answered(written: bytes) -> None:
    assert CODEC.expects_reply(written) is None


@pytest.mark.parametrize(
    "written", [b"SHUT 1\n", b"shutter 1\r", b"ON\n", b"WAV 820\n", b"wavelength 820\n", b"SHUT?\nON\n", b"SHUT 2\n"]
)
def test_what_opens_pumps_or_tunes_emits(written: bytes) -> None:
    assert CODEC.moves(written)


@pytest.mark.parametrize("written", [b"SHUT 0\n", b"OFF\n", b"WAV?\n", b"SHUT?\n", b"TIM:WATC 3\n", b"SAV\n"])
def test_what_closes_or_asks_does_not(written: bytes) -> None:
    assert not CODEC.moves(written)


def test_its_stop_closes_the_shutter_and_leaves_the_pump() -> None:
    assert CODEC.stop_bytes(None) == b"SHUT 0\n"
    assert not CODEC.is_break_in(b"SHUT 0\n")


@pytest.mark.parametrize("written", [b"SYST:ERR?\n", b"system:error?\r\n", b"WAV?\nSyst:Err?\n"])
def test_reading_the_error_queue_takes_from_it(written: bytes) -> None:
    assert CODEC.destructive(written)
    assert not CODEC.destructive(b"*STB?\n")


@pytest.mark.parametrize(
    ("reply", "unit", "value"),
    [
        (b"820nm\n", "nm", 820),
        (b"3.000W\n", "W", 3),
        (b"075%\r\n", "%", 75),
        (b"820\n", "nm", 820),
        (b".5W\n", "W", 0.5),
    ],
)
def test_units_are_taken_off(reply: bytes, unit: str, value: float) -> None:
    assert parse_quantity(reply, unit) == value


@pytest.mark.parametrize("reply", [b"\n", b"820W\n", b"nm\n", b"8 20nm\n", b"820nm1\n"])
def test_a_garbled_quantity_is_refused(reply: bytes) -> None:
    with pytest.raises(ReplyFormatError):
        parse_quantity(reply, "nm")


def test_a_shutter_is_open_or_closed_and_nothing_else() -> None:
    assert parse_flag(b"1\n")
    assert not parse_flag(b"0\n")
    with pytest.raises(ReplyFormatError):
        parse_flag(b"2\n")


@pytest.mark.parametrize("reply", [b"0 No error\n", b'0,"No error"\n', b"64 Laser on\n", b"+0\n"])
def test_no_error_and_a_lit_laser_are_an_empty_queue(reply: bytes) -> None:
    assert parse_error(reply).empty


def test_an_error_has_its_weights_and_its_text() -> None:
    assert parse_error(b'194 "Execution error"\n') == (194, "Execution error")
    assert not parse_error(b"130\n").empty
    with pytest.raises(ReplyFormatError):
        parse_error(b"Execution error\n")
