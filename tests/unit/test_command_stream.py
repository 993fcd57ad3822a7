"""A stream of bytes is cut into whole commands, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.ports import CommandStream
from duodaq.testing._scripted_port import ScriptedCodec


class CrCodec(ScriptedCodec):
    write_terminator = b"\r"


class LengthCodec(ScriptedCodec):
    """Two-letter commands, of which ``ma`` takes two digits more; nothing ends them."""

    write_terminator = b""

    def command_end(self, held: bytes, /) -> int:
        length = 4 if held.startswith(b"ma") else 2
        return length if len(held) >= length else 0


class SilentCodec(ScriptedCodec):
    write_terminator = b""


def fed(stream: CommandStream, *pieces: bytes) -> list[bytes]:
    return [command for piece in pieces for command in stream.feed(piece)]


@pytest.mark.parametrize(
    ("pieces", "commands"),
    [
        ([b"A?\n"], [b"A?\n"]),
        ([b"A?\nB\nC"], [b"A?\n", b"B\n"]),
        ([b"A", b"?", b"\n"], [b"A?\n"]),
        ([b"A\r\n", b"B\r\n"], [b"A\r\n", b"B\r\n"]),
        ([b"A\r", b"\nB\n"], [b"A\r\n", b"B\n"]),  # the LF that the device waits for is never lost
        ([b"A\rB\n"], [b"A\r", b"B\n"]),
        ([b"\n\n"], [b"\n", b"\n"]),
        ([b""], []),
    ],
)
def test_commands_ended_by_lf(pieces: list[bytes], commands: list[bytes]) -> None:
    assert fed(CommandStream(ScriptedCodec()), *pieces) == commands


@pytest.mark.parametrize(
    ("pieces", "commands"),
    [
        ([b"A\r", b"B\r"], [b"A\r", b"B\r"]),
        ([b"A\r\nB\r\n"], [b"A\r\n", b"B\r\n"]),
        ([b"A\r", b"\nB\r", b"\n"], [b"A\r", b"B\r"]),  # a late LF belongs to the CR before it, and is no command
        ([b"A\r", b"\n\n"], [b"A\r", b"\n"]),
        ([b"A\n"], [b"A\n"]),
    ],
)
def test_commands_ended_by_cr(pieces: list[bytes], commands: list[bytes]) -> None:
    assert fed(CommandStream(CrCodec()), *pieces) == commands


def test_a_cr_at_the_end_may_be_a_command_where_lf_is_usual() -> None:
    stream = CommandStream(ScriptedCodec())
    assert stream.feed(b"A?\r") == []
    assert stream.may_be_whole
    assert stream.take() == b"A?\r"
    assert stream.feed(b"\nB\n") == [b"B\n"]


def test_half_a_command_is_not_whole() -> None:
    stream = CommandStream(ScriptedCodec())
    assert stream.feed(b"A?") == []
    assert (stream.held, stream.may_be_whole) == (b"A?", False)


def test_a_codec_that_tells_commands_by_their_length_is_asked() -> None:
    assert fed(CommandStream(LengthCodec()), b"inm", b"a12gs", b"g") == [b"in", b"ma12", b"gs"]


def test_without_any_end_what_is_held_may_be_whole() -> None:
    stream = CommandStream(SilentCodec())
    assert stream.feed(b"0in") == []
    assert stream.may_be_whole
    assert stream.take() == b"0in"


@given(st.lists(st.sampled_from([b"A?\n", b"MV 1\r\n", b"B;C?\n", b"\n"])), st.data())
def test_the_pieces_make_no_difference(commands: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(commands)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert fed(CommandStream(ScriptedCodec()), *pieces) == commands
