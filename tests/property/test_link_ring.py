"""The blob ring against an obvious model: places, credits in any order, views, and descriptors that lie."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from duodaq.errors import DataError
from duodaq.link import BlobRef, FrameDecoder, RingReader, RingWriter, encode

UNIT = 64
SIZE = 4096 * 2


def room(length: int) -> int:
    return max(1, math.ceil(length / UNIT)) * UNIT


class RingMachine(RuleBasedStateMachine):
    """A writer, a reader with a quota, and whoever holds its views; the model is a map of units and plain copies."""

    QUOTA = SIZE // 2

    def __init__(self) -> None:
        super().__init__()
        self.writer = RingWriter(SIZE)
        self.credits: list[int] = []
        self.reader = RingReader(self.writer.fd, self.credits.append, self.QUOTA)
        self.in_flight: dict[int, tuple[BlobRef, bytes]] = {}
        self.unseen: list[int] = []
        self.views: dict[int, tuple[np.ndarray, bytes, bool]] = {}
        self.released: list[int] = []
        self.unknown = 0

    def units(self) -> list[bool]:
        taken = [False] * (SIZE // UNIT)
        for ref, _ in self.in_flight.values():
            first = ref.offset // UNIT
            for i in range(first, first + room(ref.length) // UNIT):
                assert not taken[i], "two blobs in flight share a place"
                taken[i] = True
        return taken

    def longest_free(self) -> int:
        return UNIT * max((len(list(run)) for taken, run in itertools.groupby(self.units()) if not taken), default=0)

    @rule(length=st.integers(0, SIZE // 2), seed=st.integers(0, 2**32))
    def write(self, length: int, seed: int) -> None:
        content = random.Random(seed).randbytes(length)
        fits = self.longest_free() >= room(length)
        ref = self.writer.write(content)
        assert (ref is not None) is fits
        if ref is not None:
            self.in_flight[ref.number] = (ref, content)
            self.unseen.append(ref.number)
            self.units()

    @precondition(lambda self: self.unseen)
    @rule(data=st.data())
    def view(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.unseen))
        self.unseen.remove(number)
        ref, content = self.in_flight[number]
        held = sum(len(seen) for _, seen, shared in self.views.values() if shared)
        shared = held + ref.length <= self.QUOTA
        copies = self.reader.copies
        array = self.reader.view(ref)
        assert self.reader.copies == copies + (not shared)
        self.views[number] = (array, content, shared)
        if not shared:
            self.released.append(number)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(list(self.views)))
        if self.views.pop(number)[2]:
            self.released.append(number)

    @precondition(lambda self: self.credits)
    @rule(data=st.data())
    def credit(self, data: st.DataObject) -> None:
        number = self.credits.pop(data.draw(st.integers(0, len(self.credits) - 1)))
        self.released.remove(number)
        self.writer.release(number)
        del self.in_flight[number]

    @rule(number=st.integers(-3, 60))
    def false_credit(self, number: int) -> None:
        if number not in self.in_flight:
            self.writer.release(number)
            self.unknown += 1

    @precondition(lambda self: self.views)
    @rule(data=st.data(), shift=st.integers(-2, 2), length=st.integers(0, SIZE))
    def forged(self, data: st.DataObject, shift: int, length: int) -> None:
        """The number of a blob in view, or a new number upon its bytes: refused, and nothing changed."""
        number = data.draw(st.sampled_from(list(self.views)))
        ref, _ = self.in_flight.get(number, (None, None))
        if ref is None or not self.views[number][2]:
            return
        with pytest.raises(DataError):
            self.reader.view(BlobRef(number, max(0, ref.offset + shift * UNIT), length, "|u1", (length,)))
        with pytest.raises(DataError):
            self.reader.view(BlobRef(10_000, ref.offset, max(1, length), "|u1", (max(1, length),)))

    @invariant()
    def every_view_shows_what_was_written(self) -> None:
        for array, content, _ in self.views.values():
            assert array.tobytes() == content

    @invariant()
    def books_are_right(self) -> None:
        assert sorted(self.credits) == sorted(self.released)
        assert self.writer.free_bytes == UNIT * self.units().count(False)
        assert self.writer.in_flight == len(self.in_flight)
        assert self.writer.unknown_credits == self.unknown
        assert self.reader.held_bytes == sum(len(seen) for _, seen, shared in self.views.values() if shared)

    def teardown(self) -> None:
        self.views.clear()
        for number in {*self.credits, *self.unseen}:
            self.writer.release(number)
        assert self.writer.free_bytes == SIZE, "not all bytes came back"
        assert self.writer.write(bytes(SIZE)) is not None, "not in one piece"
        self.reader.close()
        self.writer.close()


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

ARRAYS = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)


@settings(max_examples=150, deadline=None)
@given(array=ARRAYS, transposed=st.booleans(), stepped=st.booleans())
def test_array_of_any_dtype_and_layout_arrives_as_it_was(array: np.ndarray, transposed: bool, stepped: bool) -> None:
    sent = array.T if transposed else array
    sent = sent[::2] if stepped and sent.ndim else sent
    with _ring(64 * 1024) as (writer, reader, credits):
        ref = writer.write(sent)
        assert ref is not None
        seen = reader.view(BlobRef.from_wire(_over_the_wire(ref)))
        assert seen.dtype == sent.dtype
        assert seen.shape == sent.shape
        assert seen.tobytes() == sent.tobytes()
        assert not seen.flags.writeable
        del seen
        assert credits == [ref.number]


REFS = st.builds(
    BlobRef,
    number=st.integers(-1, 5),
    offset=st.integers(-64, SIZE + 64) | st.sampled_from([0, 64, SIZE - 64, SIZE, 2**63 - 1, 2**64 - 1]),
    length=st.integers(-64, SIZE + 64) | st.sampled_from([0, 2**63 - 1, 2**64 - 1]),
    dtype=st.sampled_from(
        ["|u1", "<f8", ">i2", "|O", "|V8", "O", "", "u1,O", "(2,)u1", "|S0", "<U999999999", "<M8[ns]", "<M8[zz]", "<f3"]
    )
    | st.text(max_size=8),
    shape=st.lists(st.integers(-2, 200) | st.sampled_from([0, 2**62, 2**63 - 1]), max_size=5).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(refs=st.lists(REFS, max_size=8))
def test_descriptor_that_lies_is_refused_and_the_ring_stays_usable(refs: list[BlobRef]) -> None:
    with _ring(SIZE) as (writer, reader, credits):
        kept = []
        for ref in refs:
            with contextlib.suppress(DataError):
                kept.append(reader.view(ref))  # one that happens to fit is no lie: zeros
                assert ref.offset + ref.length <= SIZE
        assert not any(array.any() for array in kept if array.dtype.kind in "uif")
        del kept[:]
        credits.clear()
        real = writer.write(np.arange(100))
        assert real is not None
        np.testing.assert_array_equal(reader.view(real), np.arange(100))
        assert credits == [real.number]
        assert reader.held_bytes == 0


@pytest.mark.parametrize(
    "wire", [None, 5, [], [1, 0, 8], [1, 0, 8, "<f8", [1.5]], {"number": 1}, ["a", 0, 8, "<f8", [1]]]
)
def test_what_is_no_descriptor_is_refused(wire: Any) -> None:
    with pytest.raises(DataError, match="no descriptor"):
        BlobRef.from_wire(wire)


def _over_the_wire(ref: BlobRef) -> Any:
    return next(FrameDecoder().feed(encode(ref)))


@contextlib.contextmanager
def _ring(size: int):
    writer, credits = RingWriter(size), []
    reader = RingReader(writer.fd, credits.append, size)
    try:
        yield writer, reader, credits
    finally:
        reader.close()
        writer.close()
