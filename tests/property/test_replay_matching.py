"""What a recording answers: exactly what was recorded when all goes as it went, and by the state when it does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from duodaq.model import WireRecord
from duodaq.sim.replay import Command, Matcher, rebuild

MS = 1_000_000


class Said(NamedTuple):
    """One exchange as the tests write it down."""

    port: str
    request: bytes
    reply: bytes | None = b""  # None: it broke off
    traced: bool = False


def recorded(exchanges: Iterable[Said]) -> list[WireRecord]:
    records: list[WireRecord] = []
    numbers: dict[str, int] = {}
    for index, said in enumerate(exchanges):
        number = numbers[said.port] = numbers.get(said.port, 0) + 1
        t_ns, trace = index * 10 * MS, "ab" * 16 if said.traced else None
        records.append(WireRecord(t_ns, said.port, ">", said.request, "v2.x", number, trace))
        if said.reply:
            records.append(WireRecord(t_ns + MS, said.port, "<", said.reply, "v2.x", number, trace))
        if said.reply is None:
            records.append(WireRecord(t_ns + MS, said.port, "!", b"no whole reply", "v2.x", number, trace))
    return records


def commands(exchanges: Iterable[Said]) -> list[Command]:
    return rebuild(recorded(exchanges))[0]


def answers(matcher: Matcher, *asked: tuple[str, bytes]) -> list[bytes | None]:
    found = [matcher.write(port, request.strip()) for port, request in asked]
    return [None if command is None else command.answer for command in found]


KEYS = [b"D?\n", b"1MD?\n", b"1TP?\n", b"1PA1.0\n", b"1PA2.0\n", b"1PR0.1\n", b"F3\n", b"G1 X2\n", b"*IDN?\n"]
SAID = st.builds(
    Said,
    port=st.sampled_from(["stage", "meter"]),
    request=st.sampled_from(KEYS),
    reply=st.sampled_from([b"", b"0\n", b"1\n", b"2.5\n", b"ok\n", None]),
    traced=st.booleans(),
)


@given(st.lists(SAID, max_size=60))
def test_the_same_program_gets_exactly_what_was_recorded(exchanges: list[Said]) -> None:
    found = commands(exchanges)
    matcher = Matcher(found, in_order=True)
    assert [matcher.write(said.port, said.request.strip()) for said in exchanges] == found


@given(st.lists(SAID, max_size=60))
def test_without_polls_this_holds_by_itself(exchanges: list[Said]) -> None:
    found = commands(said._replace(traced=True) for said in exchanges)
    matcher = Matcher(found)
    assert [matcher.write(said.port, said.request.strip()) for said in exchanges] == found


@given(st.lists(SAID, min_size=1, max_size=40), st.lists(st.sampled_from(KEYS), max_size=60))
def test_whatever_a_program_writes_an_answer_is_one_of_that_command(exchanges: list[Said], writes: list[bytes]) -> None:
    matcher = Matcher(commands(exchanges))
    for request in writes:
        command = matcher.write("stage", request.strip())
        if command is None:
            assert not any(said.port == "stage" and said.request == request for said in exchanges)
        else:
            assert (command.port, command.key) == ("stage", request.strip())


POSITIONS = st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True)
POLLS = st.lists(st.integers(0, 4), min_size=12, max_size=12)


def scan(positions: list[int], before: list[int], after: list[int]) -> list[Said]:
    """A stage goes through `positions`, busy twice at each; a meter is read there, and polled at any time."""
    said: list[Said] = []
    for place, (position, early, late) in enumerate(zip(positions, before, after, strict=False)):
        poll = [Said("meter", b"D?\n", b"poll %d %d\n" % (place, place + early)) for _ in range(early)]
        said.append(Said("stage", b"1PA%d\n" % position, b"", True))
        said += [*poll, *[Said("stage", b"1MD?\n", busy, True) for busy in (b"0\n", b"0\n", b"1\n")]]
        said += poll[:late]
        said.append(Said("meter", b"D?\n", b"scan %d\n" % position, True))
    return said


@given(POSITIONS, POLLS, POLLS, POLLS, POLLS)
def test_a_scan_reads_at_each_point_what_it_read_there_however_polls_fall(
    positions: list[int], before: list[int], after: list[int], early: list[int], late: list[int]
) -> None:
    matcher = Matcher(commands(scan(positions, before, after)))
    for said in scan(positions, early, late):
        command = matcher.write(said.port, said.request.strip())
        assert command is not None
        if said.reply is not None and said.reply.startswith(b"scan"):
            assert command.answer == said.reply


@given(POSITIONS.flatmap(lambda positions: st.tuples(st.just(positions), st.permutations(positions))))
def test_points_in_another_order_are_read_by_their_state(given_both: tuple[list[int], list[int]]) -> None:
    positions, permuted = given_both
    none = [0] * len(positions)
    matcher = Matcher(commands(scan(positions, none, none)))
    for said in scan(permuted, none, none):
        command = matcher.write(said.port, said.request.strip())
        assert command is not None
        assert command.answer == said.reply


@given(st.integers(0, 3), st.integers(1, 6))
def test_who_waits_for_a_change_comes_to_it_and_stays_there(extra: int, busy: int) -> None:
    """Also if another's question, by which the recording knew the states apart, is never asked."""
    said = [Said("stage", b"1PA1\n")]
    said += [Said("stage", b"1TS?\n", b"Q\n"), Said("stage", b"1MD?\n", b"0\n")] * busy
    said += [Said("stage", b"1TS?\n", b"@\n"), Said("stage", b"1MD?\n", b"1\n")]
    matcher = Matcher(commands(said))
    matcher.write("stage", b"1PA1")
    matcher.write("stage", b"1TS?")
    asked = [("stage", b"1MD?")] * (busy + 1 + extra)
    assert answers(matcher, *asked) == [b"0\n"] * busy + [b"1\n"] * (1 + extra)


def test_settings_made_in_another_order_come_to_the_same_state() -> None:
    said = [Said("a", b"A 1\n"), Said("b", b"B 1\n"), Said("c", b"V?\n", b"11\n")]
    said += [Said("a", b"A 2\n"), Said("b", b"B 2\n"), Said("c", b"V?\n", b"22\n")]
    matcher = Matcher(commands(said))
    assert answers(matcher, ("b", b"B 2"), ("a", b"A 2"), ("c", b"V?"))[-1] == b"22\n"


@given(st.lists(st.integers(1, 3), min_size=3, max_size=3), st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_a_step_that_is_told_again_and_again_is_a_place_of_its_own(asked: list[int], again: list[int]) -> None:
    """Relative moves: nothing that was set tells the places apart."""
    said: list[Said] = []
    for place, count in enumerate(asked):
        said += [Said("stage", b"1PR0.1\n"), *[Said("stage", b"1TP?\n", b"%d\n" % place)] * count]
    matcher = Matcher(commands(said))
    for place, count in enumerate(again):
        assert answers(matcher, ("stage", b"1PR0.1"))
        assert answers(matcher, *[("stage", b"1TP?")] * count) == [b"%d\n" % place] * count
