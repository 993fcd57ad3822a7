import pytest

from duodaq.drivers.ell14 import EllCodec, EllFraming, EllStatus, parse_identity, parse_position, parse_status
from duodaq.errors import ReplyFormatError
from duodaq.ports import PortCodec

CODEC: PortCodec = EllCodec()
ELL = EllCodec()


def framing(written: bytes) -> EllFraming:
    found = ELL.expects_reply(written)
    assert isinstance(found, EllFraming)
    return found


@pytest.mark.parametrize(
    ("written", "reply"),
    [
        (b"0in", b"0IN0E1140051020231701016800023000\r\n"),
        (b"Ags\r\n", b"AGS09\r\n"),
        (b"2gp\r", b"2POFFFFFFFF\r\n"),
        (b"0gv", b"0GV64\r\n"),
        (b"0gj", b"0GJ00000100\r\n"),
        (b"0go", b"0HO00000100\r\n"),
        (b"0sj00000100", b"0GS00\r\n"),
        (b"0ca5", b"5GS00\r\n"),
        (b"0ma00001000", b"0PO00001000\r\n"),
        (b"0ma00001000", b"0GS02\r\n"),
    ],
)
def test_each_command_has_its_reply(written: bytes, reply: bytes) -> None:
    assert framing(written).feed(reply) == reply


@pytest.mark.parametrize("written", [b"0st", b"0st1st2st", b"0ms\r\n", b"\r\n", b"", b"0g", b"xgs"])
def test_a_stop_and_what_is_no_command_wait_for_no_reply(written: bytes) -> None:
    assert CODEC.expects_reply(written) is None


@pytest.mark.parametrize("written", [b"0ma00001000", b"1mr00001000\r\n", b"0ho", b"0ho1", b"0fw", b"2bw", b"0s1"])
def test_what_turns_moves_and_is_answered_later(written: bytes) -> None:
    assert CODEC.moves(written)
    assert ELL.defers(written)


@pytest.mark.parametrize("written", [b"0gs", b"0gp", b"0in", b"0sv32", b"0st", b"0us"])
def test_what_does_not_turn_is_answered_at_once(written: bytes) -> None:
    assert not CODEC.moves(written)
    assert not ELL.defers(written)


def test_a_stop_goes_to_one_address_or_to_all_and_never_breaks_in() -> None:
    assert CODEC.stop_bytes("10") == b"Ast"
    everybody = CODEC.stop_bytes(None)
    assert everybody is not None
    assert everybody.startswith(b"0st1st")
    assert len(everybody) == 48
    assert not CODEC.is_break_in(b"0st")


def test_other_addresses_and_buttons_are_passed_by_and_kept() -> None:
    reply = framing(b"0gs")
    assert reply.feed(b"1PO00000001\r\n0BO00000002\r\n0G") is None
    assert reply.feed(b"S00\r\n2GS00\r\n") == b"0GS00\r\n"
    assert reply.rest == b"1PO00000001\r\n0BO00000002\r\n2GS00\r\n"


def test_the_answer_to_a_stop_does_not_end_a_motion() -> None:
    motion = framing(b"0ma00001000")
    assert motion.feed(b"0GS00\r\n") is None
    assert motion.feed(b"0PO00000800\r\n") == b"0PO00000800\r\n"
    assert framing(b"0s1").feed(b"0GS00\r\n") == b"0GS00\r\n"


def test_a_position_is_no_status() -> None:
    assert framing(b"0gs").feed(b"0PO00000001\r\n") is None


@pytest.mark.parametrize("damaged", [b"0G?00\r\n", b"0GS0\r\n", b"0GSxx\r\n", b"?GS00\r\n", b"\r\n"])
def test_a_damaged_reply_is_refused(damaged: bytes) -> None:
    with pytest.raises(ReplyFormatError):
        framing(b"0gs").feed(damaged)


def test_a_damaged_frame_of_another_address_disturbs_nobody() -> None:
    assert framing(b"0gs").feed(b"1G?00\r\n0GS00\r\n") == b"0GS00\r\n"


def test_a_frame_that_was_torn_off_does_not_damage_the_next() -> None:
    """A device lost its power in the middle of it; one without an end is nobody's reply, however whole it looks."""
    for torn in (b"0P", b"0PO0000", b"0GS00", b"2PO00000001"):
        reply = framing(b"0gp")
        assert reply.feed(torn + b"0PO00001234\r\n") == b"0PO00001234\r\n"
        assert reply.rest == torn
        assert EllCodec().frames(torn + b"0PO00001234\r\n0P") == ([torn, b"0PO00001234\r\n"], b"0P")


def test_a_frame_without_an_end_is_given_up() -> None:
    with pytest.raises(ReplyFormatError, match="without an end"):
        framing(b"0gs").feed(b"0" * 100)


def test_positions_are_signed() -> None:
    assert parse_position(b"0PO00023000\r\n") == 143360
    assert parse_position(b"0POFFFFFFFF\r\n") == -1
    with pytest.raises(ReplyFormatError):
        parse_position(b"0GS00\r\n")


def test_a_status_is_its_code_and_an_unknown_one_is_unknown() -> None:
    assert parse_status(b"0GS0D\r\n") is EllStatus.OVER_CURRENT
    assert parse_status(b"0GS77\r\n") is EllStatus.UNKNOWN
    assert parse_status(b"0PO00000000\r\n") is None
    assert EllStatus.MECHANICAL_TIMEOUT.text == "mechanical timeout"


def test_an_identity_tells_the_pulses_of_a_revolution() -> None:
    identity = parse_identity(b"0IN0E1140051020231701016800023000\r\n")
    assert identity == (14, "11400510", "17", 360, 143360)
    with pytest.raises(ReplyFormatError, match="no pulses"):
        parse_identity(b"0IN0E1140051020231701016800000000\r\n")
    with pytest.raises(ReplyFormatError):
        parse_identity(b"0GS00\r\n")
