"""What must be known of a worker after it has died: a page of memory that it shares with the manager.

    0      256 × u64   the numbers of the commands in hand, in slot number % 256
    2048   4096 × 128 bytes, one for each channel: u64 the next sequence number, u8 length of the name, the name

The worker writes, the manager reads, and only when the worker is dead. A number is written before what it stands for
begins (a command) or is given away (a measurement), with one aligned store, so the page is never behind the truth.
`struct.pack_into` would not do: it fills the place with zeros first, and a kill between the two leaves a count of 0.
The page outlives the worker: the replacement gets the same one, and counts on.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator

from duodaq.errors import OutOfRangeError
from duodaq.v2 import Sequences

IN_HAND = 256
CHANNELS = 4096
_WORD = 8
_RECORD = 128
_BEGIN = IN_HAND * _WORD
_SIZE = _BEGIN + CHANNELS * _RECORD
_MOST_NAME = _RECORD - _WORD - 1
_MOST_COUNT = 2**53


class SharedPage:
    """The page, in either process.

    Args:
        fd: Its descriptor, which the page owns from now on; a new page is made without one.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _new_file() if fd is None else fd
        self._memory = mmap.mmap(self.fd, _SIZE)
        with memoryview(self._memory) as memory:
            self._words = memory.cast("Q")
        self._places = {name: place for place, name, _ in self._records()}

    def begin(self, number: int) -> None:
        """The command of that number is being taken in hand."""
        self._words[number % IN_HAND] = number

    def begun(self, number: int) -> bool:
        """Whether that command has been taken in hand; of one about which the page was written over, yes: who knows."""
        noted = self._words[number % IN_HAND]
        written_over = noted % IN_HAND != number % IN_HAND and noted != 0
        return number != 0 and (noted == number or written_over)

    def next_of(self, channel: str) -> int:
        """The sequence number that the next measurement of a channel gets."""
        place = self._places.get(channel)
        return 0 if place is None else self._words[place // _WORD]

    def set_next(self, channel: str, number: int) -> None:
        """All numbers of a channel before `number` have been used.

        Raises:
            OutOfRangeError: There are too many channels, or its name is too long.
        """
        place = self._places.get(channel)
        if place is None:
            place = self._new_place(channel)
        self._words[place // _WORD] = number

    def counts(self) -> dict[str, int]:
        """How many measurements of each channel have been made, by ``<instrument>.<channel>``; read afresh.

        A count that nothing can have reached was written over, and is left out.
        """
        return {name: count for _, name, count in self._records() if count < _MOST_COUNT}

    def numbers_of(self, instrument: str) -> dict[str, int]:
        """The next number of each channel of an instrument."""
        prefix = f"{instrument}."
        return {n.removeprefix(prefix): count for n, count in self.counts().items() if n.startswith(prefix)}

    def close(self) -> None:
        """Give it back on this side. Idempotent."""
        if self.fd >= 0:
            self._words.release()
            self._memory.close()
            os.close(self.fd)
            self.fd = -1

    def _records(self) -> Iterator[tuple[int, str, int]]:
        for place in range(_BEGIN, _SIZE, _RECORD):
            length = self._memory[place + 8]
            if not length:
                return
            name = self._memory[place + 9 : place + 9 + min(length, _MOST_NAME)].decode(errors="replace")
            yield place, name, self._words[place // _WORD]

    def _new_place(self, channel: str) -> int:
        name = channel.encode()
        if not 0 < len(name) <= _MOST_NAME or len(self._places) >= CHANNELS:
            raise OutOfRangeError(
                f"channel {channel!r}: a worker counts {CHANNELS} channels with names of {_MOST_NAME} bytes at most"
            )
        place = _BEGIN + len(self._places) * _RECORD
        self._memory[place + 9 : place + 9 + len(name)] = name
        self._memory[place + 8] = len(name)
        self._places[channel] = place
        return place


class PagedSequences(Sequences):
    """V2's sequence numbers, on the page."""

    def __init__(self, page: SharedPage) -> None:
        super().__init__()
        self._page = page

    def next_of(self, instrument: str, channel: str) -> int:
        return self._page.next_of(f"{instrument}.{channel}")

    def used(self, instrument: str, channel: str) -> None:
        name = f"{instrument}.{channel}"
        self._page.set_next(name, self._page.next_of(name) + 1)

    def returned(self, instrument: str, channel: str, sequence: int) -> None:
        name = f"{instrument}.{channel}"
        if self._page.next_of(name) == sequence + 1:
            self._page.set_next(name, sequence)

    def reach(self, instrument: str, channel: str, number: int) -> None:
        name = f"{instrument}.{channel}"
        if self._page.next_of(name) < number:
            self._page.set_next(name, number)

    def of(self, instrument: str) -> dict[str, int]:
        return self._page.numbers_of(instrument)


class PagedNumbers(dict[str, dict[str, int]]):
    """V4's next sequence numbers by instrument and channel, on the page."""

    def __init__(self, page: SharedPage) -> None:
        super().__init__()
        self._page = page

    def setdefault(self, key: str, default: dict[str, int] | None = None, /) -> dict[str, int]:
        if key not in self:
            self[key] = _ChannelNumbers(self._page, key)
        return self[key]


class _ChannelNumbers(dict[str, int]):
    def __init__(self, page: SharedPage, instrument: str) -> None:
        super().__init__(page.numbers_of(instrument))
        self._page = page
        self._prefix = f"{instrument}."

    def __setitem__(self, channel: str, number: int, /) -> None:
        super().__setitem__(channel, number)
        self._page.set_next(self._prefix + channel, number)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("duodaq-page", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _SIZE)
    return fd
