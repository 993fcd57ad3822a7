"""Blobs from one process to another by shared memory, with one copy: the producer's, into the ring.

Rules for whoever edits this:

* The writer alone decides where a blob lies, from its own books, which are not in the shared memory: a reader can
  neither write to the ring nor make the writer write beside a free place. A credit that makes no sense is counted.
* The reader believes nothing: each descriptor is checked against the ring and against those in use, before an array is
  made. The size is sealed, so whatever the producer does, reading is never a fault: at worst a picture in
  flight is wrong.
* A blob's place is free when its credit came back, and the credit is sent when the last array or Arrow buffer on it is
  gone. The chain is: array → memoryview → *slot* → mapping. The slot is an array that nobody else gets; exporting it by
  the buffer protocol is what keeps numpy from replacing it as `base` by what stands behind it.
* That last reference may go in any thread, also within the garbage collector, which may run in the middle of any line
  here. So the finaliser takes no lock: it appends to a deque and calls `on_release`, which only enqueues as well. The
  books are set right by the next call that takes the lock.
* Nobody unmaps: views keep the mapping alive, after `close()`, without the descriptor, without the other end.
* Pages are made as they are first written, which costs 20 times what writing there again does (6.6 ms to 0.25 ms for
  8.4 MB); made in advance (MAP_POPULATE, MADV_POPULATE_WRITE) they cost at least two thirds of that, used or not. So
  places are taken from the bottom, few pages are ever made, and the end of a process, which unmaps them, is cheap.
"""

from __future__ import annotations

import math
import re
import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from duodaq.errors import DataError
from duodaq.link._ring_memory import RingMemory, attach_memory, make_memory
from duodaq.link._ring_places import ALIGNMENT, Places


class BlobRef(msgspec.Struct, array_like=True, frozen=True):
    """Where an array lies in a ring: `number` counts the ring's blobs, `offset` and `length` are bytes."""

    number: int
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def from_wire(cls, value: Any) -> BlobRef:
        """The descriptor that came over a link as a plain list; its numbers are not checked yet.

        Raises:
            DataError: It is none.
        """
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"no descriptor of a blob: {error}") from error


class RingWriter:
    """The producer's end: the only one that writes. Any thread may use it.

    Args:
        size: Bytes, rounded up to whole pages. No memory is used before blobs are written.
        memory: What to stand on; by default a sealed memfd, and named shared memory where Linux is not.

    `unknown_credits` counts those of blobs that are not in flight: sent twice, or forged.
    """

    def __init__(self, size: int, *, memory: RingMemory | None = None) -> None:
        self._memory = memory or make_memory(size)
        self.size = self._memory.size
        self.unknown_credits = 0
        self._places = Places(self.size)
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._number = 0
        self._guard = threading.Lock()

    @property
    def handle(self) -> int | str:
        """What a reader needs: the descriptor, or elsewhere than on Linux the name."""
        return self._memory.handle

    @property
    def fd(self) -> int:
        """The descriptor to pass to readers: read-only, this ring's own; -1 once closed, or where there is none."""
        handle = self._memory.handle
        return handle if isinstance(handle, int) else -1

    @property
    def free_bytes(self) -> int:
        """Bytes that no blob in flight takes up, in one place or in several."""
        return self._places.free_bytes

    @property
    def in_flight(self) -> int:
        """Blobs whose credit has not come back. If there is none and a blob finds no room, it never will."""
        return len(self._in_flight)

    def write(self, blob: npt.NDArray[Any] | bytes | bytearray | memoryview) -> BlobRef | None:
        """Copy `blob` into the ring.

        Args:
            blob: An array of numbers, times or fixed-length text, of any layout; or contiguous bytes, which arrive as
                an array of uint8.

        Returns:
            What the reader needs to see it, C-contiguous there; None when there is no place of that length now, or
            ever. Then nothing was written.

        Raises:
            DataError: Python objects, or records with fields, do not travel. Nothing was written.
            LifecycleError: The ring is closed.
        """
        array: npt.NDArray[Any] = blob if isinstance(blob, np.ndarray) else np.frombuffer(blob, np.uint8)
        if not _travels(array.dtype):
            raise DataError(f"an array of {array.dtype} does not travel through a ring")
        taken = self._take(array.nbytes)
        if taken is None:
            return None
        number, offset, place = taken
        np.copyto(np.ndarray(array.shape, array.dtype, place), array)
        return BlobRef(number, offset, array.nbytes, array.dtype.str, array.shape)

    def fill(self, length: int, write: Callable[[memoryview], None]) -> BlobRef | None:
        """Have `write` fill a place of `length` bytes, which arrive as an array of uint8.

        Returns:
            As `write`. What `write` raises goes on to the caller, and the place is free again.
        """
        taken = self._take(length)
        if taken is None:
            return None
        number, offset, place = taken
        try:
            write(place[:length])
        except BaseException:
            self.release(number)
            raise
        return BlobRef(number, offset, length, "|u1", (length,))

    def _take(self, length: int) -> tuple[int, int, memoryview] | None:
        """The next blob's number, its offset and its place; None without room."""
        buffer = self._memory.buffer
        with self._guard:
            offset = self._places.take(length)
            if offset is None:
                return None
            self._number += 1
            number = self._number
            self._in_flight[number] = (offset, length)
        self._memory.prepare(offset, length)
        return number, offset, memoryview(_place(buffer, offset, length))

    def release(self, number: int) -> None:
        """Take a credit back: the place of that blob is free. One that nobody knows is counted and changes nothing."""
        with self._guard:
            place = self._in_flight.pop(number, None)
            if place is None:
                self.unknown_credits += 1
            else:
                self._places.give_back(*place)

    def close(self) -> None:
        """Write no more. What readers see stays as long as they look at it. Idempotent."""
        with self._guard:
            self._memory.close()


class RingReader:
    """A consumer's end: read-only arrays that share the ring's memory. Any thread may use it.

    Args:
        handle: The writer's `fd` (it stays the caller's, and may be closed), or its name.
        on_release: Called with a blob's number, once, when its last view is gone, in whichever thread that happens,
            also within the garbage collector: it must only enqueue, never block, never raise, never come back here.
        quota_bytes: What may be in view at once. Beyond it, `view` returns a private copy and releases at once, so that
            who holds on to frames does not stop the producer.

    `copies` counts those copies.

    Raises:
        DataError: The handle stands for nothing whose size is sealed.
    """

    def __init__(self, handle: int | str, on_release: Callable[[int], None], quota_bytes: int) -> None:
        self._memory = attach_memory(handle)
        self.size = self._memory.size
        self.quota_bytes = quota_bytes
        self.copies = 0
        self._on_release = on_release
        self._held_bytes = 0
        self._held: dict[int, tuple[int, tuple[int, int]]] = {}  # length and span, by number
        self._spans: list[tuple[int, int]] = []  # first byte and end of each, ordered
        self._gone: deque[int] = deque()
        self._guard = threading.Lock()

    @property
    def handle(self) -> int | str:
        """What a third process needs to map the same ring."""
        return self._memory.handle

    @property
    def fd(self) -> int:
        """A descriptor to pass on: read-only, this reader's own; -1 once closed, or where there is none."""
        handle = self._memory.handle
        return handle if isinstance(handle, int) else -1

    @property
    def held_bytes(self) -> int:
        """Bytes of the blobs in view."""
        with self._guard:
            self._settle()
            return self._held_bytes

    def view(self, ref: BlobRef) -> npt.NDArray[Any]:
        """The blob that `ref` describes, read-only, without a copy as long as the quota lasts.

        Raises:
            DataError: The descriptor does not fit the ring, or a blob that is in view. Nothing changed, and no credit
                is returned for it.
            LifecycleError: The ring is closed.
        """
        dtype = _checked(ref, self.size)
        buffer = self._memory.buffer
        slot = _place(buffer, ref.offset, ref.length)
        with self._guard:
            self._settle()
            self._refuse_if_in_use(ref)
            shared = self._held_bytes + ref.length <= self.quota_bytes
            if shared:
                self._hold(ref)
            else:
                self.copies += 1
        if not shared:
            return self._copied(ref, dtype, slot)
        weakref.finalize(slot, _released, self._gone, ref.number, self._on_release).atexit = False
        return np.frombuffer(memoryview(slot), dtype, ref.length // dtype.itemsize).reshape(ref.shape)

    def _copied(self, ref: BlobRef, dtype: np.dtype[Any], slot: Any) -> npt.NDArray[Any]:
        copy: npt.NDArray[Any] = np.array(np.ndarray(ref.shape, dtype, memoryview(slot)))
        copy.flags.writeable = False
        self._on_release(ref.number)
        return copy

    def _hold(self, ref: BlobRef) -> None:
        span = (ref.offset, ref.offset + max(1, ref.length))
        self._held[ref.number] = ref.length, span
        self._spans.insert(bisect_left(self._spans, span), span)
        self._held_bytes += ref.length

    def _settle(self) -> None:
        """Strike off what the finalisers have reported since."""
        while self._gone:
            length, span = self._held.pop(self._gone.popleft())
            del self._spans[bisect_left(self._spans, span)]
            self._held_bytes -= length

    def _refuse_if_in_use(self, ref: BlobRef) -> None:
        if ref.number in self._held:
            raise DataError(f"blob {ref.number} is in view already")
        i = bisect_left(self._spans, (ref.offset + max(1, ref.length), 0))
        if i and self._spans[i - 1][1] > ref.offset:
            raise DataError(f"blob {ref.number} lies upon another that is in view")

    def close(self) -> None:
        """Make no new views. Those that there are stay good, and their credits still come. Idempotent."""
        self._memory.close()


def _place(buffer: Any, offset: int, length: int) -> Any:
    """The bytes of a place, one at least, as an array that exports `buffer`: the mapping cannot be closed under it.

    (`np.ndarray` on the mapping would only refer to it. `Any`, because numpy's types do not say before Python 3.12
    that an array is a buffer.)
    """
    return np.frombuffer(buffer, np.uint8, max(1, length), offset)


def _released(gone: deque[int], number: int, on_release: Callable[[int], None]) -> None:
    gone.append(number)
    on_release(number)


_MOST_BYTES = 2**62  # of an array, also of an empty one: numpy multiplies its other dimensions all the same
_DTYPE = re.compile(r"[<>|][biufcmMSU]\d{1,9}(\[\d{0,9}[A-Za-z]{1,2}\])?")


def _travels(dtype: np.dtype[Any]) -> bool:
    return _DTYPE.fullmatch(dtype.str) is not None and dtype.itemsize > 0


def _checked(ref: BlobRef, size: int) -> np.dtype[Any]:
    """The dtype of a descriptor that fits a ring of `size` bytes."""
    if not all(type(number) is int and number >= 0 for number in (ref.number, ref.offset, ref.length, *ref.shape)):
        raise DataError(f"a blob of negative or broken numbers: {ref}")
    if ref.offset % ALIGNMENT or ref.offset + max(1, ref.length) > size:
        raise DataError(f"blob {ref.number} lies outside of the ring of {size} bytes, or beside a place: {ref}")
    if not _DTYPE.fullmatch(ref.dtype):
        raise DataError(f"blob {ref.number} has dtype {ref.dtype!r}, which does not travel")
    try:
        dtype = np.dtype(ref.dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"blob {ref.number}: {error}") from error
    possible = len(ref.shape) <= 32 and math.prod(n or 1 for n in ref.shape) * dtype.itemsize < _MOST_BYTES
    if not possible or not dtype.itemsize or math.prod(ref.shape) * dtype.itemsize != ref.length:
        raise DataError(f"blob {ref.number}: {ref.length} bytes are no {ref.dtype} of shape {ref.shape}")
    return dtype
