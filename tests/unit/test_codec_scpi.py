import math

import pytest

from duodaq.drivers.scpi import EventStatus, ScpiCodec
from duodaq.drivers.scpi._codec import block_payload, parse_error, parse_number
from duodaq.errors import ReplyFormatError
from duodaq.ports import PortCodec

CODEC: PortCodec = ScpiCodec()


@pytest.mark.parametrize(
    ("written", "reply"),
    [
        (b"*IDN?\n", b"A,B,0,1\n"),
        (b"VOLT 3.3, (@1);VOLT? (@1)\n", b"3.3\n"),
        (b"FUNC?;:VOLT:RANG?\n", b'"VOLT";10\n'),
        (b"WAV:DATA?\n", b"#15a\nb;c\n"),
        (b"VOLT?\nCURR?\n", b"1\n2\n"),
        (b"WAV:DATA?\nCURR?\n", b"#13\n\n\n\n2\n"),
        (b"DISP:TEXT 'a?;b'\r\n;*OPC?\r\n", b"1\n"),
    ],
)
def test_each_message_with_a_query_has_one_reply_of_its_own(written: bytes, reply: bytes) -> None:
    framing = CODEC.expects_reply(written)
    assert framing is not None
    for at in range(len(reply) - 1):
        assert framing.feed(reply[at : at + 1]) is None
    assert framing.feed(reply[-1:]) == reply


@pytest.mark.parametrize(
    "written", [b"*RST\n", b'DISP:TEXT "why?"\n', b"DATA #210a?;b?\nc?\n\n;X 1\n", b"\n", b"*CLS;*OPC\n"]
)
def test_nothing_is_expected_without_a_query(written: bytes) -> None:
    assert CODEC.expects_reply(written) is None


@pytest.mark.parametrize(
    "written", [b"OUTP ON\n", b"OUTPut 1, (@1)\n", b":OUTP:STAT 1\n", b"*CLS;SHUT 1\n", b"SOUR1:OUTP on\n"]
)
def test_switching_an_output_or_a_shutter_on_counts_as_emitting(written: bytes) -> None:
    assert CODEC.moves(written)


@pytest.mark.parametrize(
    "written", [b"OUTP OFF\n", b"OUTP?\n", b"SHUT 0\n", b"VOLT:RANG 1\n", b"OUTP:PROT:CLE\n", b"SHUT?\n"]
)
def test_other_commands_do_not(written: bytes) -> None:
    assert not CODEC.moves(written)


@pytest.mark.parametrize(
    "written", [b"SYST:ERR?\n", b":system:error:next?\n", b"*ESR?\n", b"STAT:QUES?\n", b"STAT:OPER:EVEN?\n"]
)
def test_reading_error_queue_and_event_registers_is_destructive(written: bytes) -> None:
    assert CODEC.destructive(written)


@pytest.mark.parametrize("written", [b"*STB?\n", b"SYST:ERR:COUN?\n", b"STAT:QUES:COND?\n", b"*IDN?\n"])
def test_other_reads_are_not(written: bytes) -> None:
    assert not CODEC.destructive(written)


def test_error_entries_are_read_with_and_without_a_sign() -> None:
    assert parse_error('+0,"No error"') == (0, "No error")
    assert parse_error('0,"No error"').code == 0
    assert parse_error('-113,"Undefined header;""X"""') == (-113, 'Undefined header;"X"')
    with pytest.raises(ReplyFormatError):
        parse_error("No error")


def test_overload_and_not_a_number_are_told_apart() -> None:
    assert parse_number("+1.5E+00") == 1.5
    assert parse_number("9.9E37") == math.inf
    assert parse_number("-9.90000000E+37") == -math.inf
    assert math.isnan(parse_number("9.91E37"))
    with pytest.raises(ReplyFormatError):
        parse_number("1,2")


def test_block_payloads_are_taken_by_length() -> None:
    assert block_payload(b"#15a\nb;c\n") == b"a\nb;c"
    assert block_payload(b"#0abc\n") == b"abc"
    for torn in (b"#15ab\n", b"abc\n", b"#", b"#2a\n"):
        with pytest.raises(ReplyFormatError):
            block_payload(torn)


def test_the_four_error_bits_mean_failure() -> None:
    assert not EventStatus(0xC3).failed
    assert all(EventStatus(bit).failed for bit in (4, 8, 16, 32))
